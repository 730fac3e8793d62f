"""What the inputs of a resource may be, as the arguments of the real package say it."""

from __future__ import annotations

import collections.abc
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from pulumi._types import input_type_py_to_pulumi_names, input_type_types, is_input_type

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"  # how the engine writes a value that is not known yet
DEFAULTS = "__defaults"  # which inputs were filled in by Check
WORDS_OF_BOOLEANS = {"true", "false", ""}


class Problem(NamedTuple):
    """What is wrong with an input; `path` is as `launchTemplate.version`."""

    path: str
    reason: str


def problems(arguments: type, inputs: Mapping[str, Any], path: str = "") -> Iterator[Problem]:
    """What a class of arguments does not know, wants otherwise, or misses."""
    types, names = input_type_types(arguments), input_type_py_to_pulumi_names(arguments)
    for key, value in inputs.items():
        where = f"{path}.{key}" if path else key
        if key == DEFAULTS or value is None:
            continue
        if key not in types:
            yield Problem(where, f"Invalid or unknown key. Examine values at '{where}'.")
        else:
            yield from misfits(types[key], value, where)
    for parameter in inspect.signature(arguments.__init__).parameters.values():  # type: ignore[misc]
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            name = names[parameter.name]
            if inputs.get(name) is None:
                where = f"{path}.{name}" if path else name
                said = f'The argument "{parameter.name}" is required, but no definition was found.'
                yield Problem(where, f"Missing required argument. {said} Examine values at '{where}'.")


def misfits(hint: Any, value: Any, where: str) -> Iterator[Problem]:
    """What of a value does not fit the type that it is to have."""
    if value == UNKNOWN:
        return
    fitting = [each for each in alternatives(hint) if fits(each, value)]
    if not fitting:
        wanted = " or ".join(sorted({wording(each) for each in alternatives(hint)}))
        yield Problem(where, f"expected {wanted}, but got {value!r}. Examine values at '{where}'.")
        return
    chosen = fitting[0]
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from misfits(get_args(chosen)[0], each, f"{where}[{number}]")
    elif isinstance(value, dict) and is_input_type(chosen):
        yield from problems(chosen, value, where)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from misfits(get_args(chosen)[1], each, f"{where}.{key}")


def alternatives(hint: Any) -> list[Any]:
    """The types of a union, and its one type of what is none; what merely promises a value is left out."""
    if get_origin(hint) in {collections.abc.Awaitable} or "Output" in str(get_origin(hint)):
        return []
    if get_origin(hint) is None or get_origin(hint) in {collections.abc.Sequence, collections.abc.Mapping}:
        return [] if hint is type(None) else [hint]
    return [found for each in get_args(hint) for found in alternatives(each)]


def fits(hint: Any, value: Any) -> bool:
    """Whether a value is of the same form; what is in it is looked at by itself."""
    if get_origin(hint) is collections.abc.Sequence:
        return isinstance(value, list)
    if get_origin(hint) is collections.abc.Mapping or is_input_type(hint):
        return isinstance(value, dict)
    if hint is bool:
        return isinstance(value, bool) or value in WORDS_OF_BOOLEANS
    if hint is int:
        return is_whole(value)
    return not isinstance(value, dict | list)


def is_whole(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        return float(value) == int(float(value))
    except (TypeError, ValueError):
        return False


def wording(hint: Any) -> str:
    if get_origin(hint) is collections.abc.Sequence:
        return "a list"
    if get_origin(hint) is collections.abc.Mapping or is_input_type(hint):
        return "an object"
    return {bool: "a boolean", int: "an integer"}.get(hint, "a text")
