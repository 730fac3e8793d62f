"""What each command prints with `--json`, from the typed dictionaries that `ems.views` builds."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Any, NamedTuple

from ems.views import (
    check,
    database,
    doctor,
    failures,
    imported,
    left,
    outputs,
    pilot,
    points,
    rounds,
    status,
    synced,
    teardown,
)
from scripts.reference.commands import link
from scripts.reference.markdown import code, table

INTRODUCTION = """# JSON shapes

These commands print one JSON value on standard output with `--json`; messages go to standard error. Keys may be added
at any time, so a script should ignore keys that it does not know: see [Releases](../releases.md).

`ems results STACK --json` prints a list of rows instead: see [Results](../results.md). `ems schema` prints the
JSON Schema of stack files: see [Stack-file keys](stack-file.md).
"""
NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "any value"}


class Shape(NamedTuple):
    """Which function builds the objects of some commands, with an option perhaps, and whether they print a list."""

    commands: tuple[str, ...]
    build: Callable[..., Any]
    many: bool = True
    option: str = ""


SHAPES = (
    Shape(("ems status", "ems up", "ems stop"), status.status_object),
    Shape(("ems up",), pilot.as_object, option=" --pilot"),
    Shape(("ems import",), imported.as_object, many=False),
    Shape(("ems sync",), synced.as_object),
    Shape(("ems check",), check.as_object),
    Shape(("ems failures",), failures.as_object),
    Shape(("ems points",), points.as_object),
    Shape(("ems outputs",), outputs.as_object),
    Shape(("ems rounds",), rounds.as_object),
    Shape(("ems teardown",), teardown.as_object, many=False),
    Shape(("ems clean",), left.as_object),
    Shape(("ems doctor",), doctor.as_object),
    Shape(("ems database init",), database.setup_object, many=False),
    Shape(("ems database check",), database.as_object, many=False),
    Shape(("ems database copy",), database.compared_object),
)


def page() -> str:
    return "\n".join([INTRODUCTION, *(section(shape) for shape in SHAPES)])


def section(shape: Shape) -> str:
    title = ", ".join(shape.commands) + shape.option
    links = ", ".join(link(name).replace("(#", "(commands.md#") for name in shape.commands)
    kind = typing.get_type_hints(shape.build)["return"]
    printed = "a list of objects, each of this shape" if shape.many else "one object"
    return "\n".join([f"## {title}\n", f"{links}: {printed}. {said(kind)}\n", *tables(kind)])


def said(kind: type) -> str:
    return (kind.__doc__ or "").strip()


def tables(kind: type, seen: set[type] | None = None) -> Iterator[str]:
    """The keys of an object, then those of the objects in it, each kind once."""
    seen = set() if seen is None else seen
    hints = typing.get_type_hints(kind, include_extras=True)
    yield table(
        ["key", "type", "meaning"], ([code(key), name(hint), hint.__metadata__[0]] for key, hint in hints.items())
    )
    for key, hint in hints.items():
        for inner in inside(hint.__origin__):
            which = "Each object in" if typing.get_origin(hint.__origin__) is list else "The object in"
            if inner not in seen:
                seen.add(inner)
                yield f"{which} `{key}`: {said(inner)}\n"
                yield from tables(inner, seen)


def inside(hint: Any) -> Iterator[type]:
    """The typed dictionaries that a type, or one of its arguments, is."""
    return (each for each in (hint, *typing.get_args(hint)) if typing.is_typeddict(each))


def name(hint: Any) -> str:
    """The type of a key, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return name(arguments[0])
    if origin is list:
        return f"list of {'objects' if typing.is_typeddict(arguments[0]) else plural(name(arguments[0]))}"
    if origin is dict or typing.is_typeddict(hint):
        return "object"
    return " or ".join(map(name, arguments)) if origin is UnionType else NAMES[hint]


def plural(noun: str) -> str:
    return {"text": "texts"}.get(noun, f"{noun}s")
