"""Stack files on disk: what one says, with file and line for each fault."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ems.base.errors import Fault, StackFileError
from ems.base.messages import nearest, plain, show
from ems.stack import spec as specs
from ems.stack import yamlfile
from ems.stack.keys import PROJECT_KEYS, dotted, placed, secrets, setting_faults
from ems.stack.models import KINDS, Kind, Spec
from ems.stack.scalars import rewritten, rewritten_setting
from ems.stack.schema import PULUMI_KEYS, WRITTEN_BY_PULUMI
from ems.stack.settings import NO_PLACES, Places

_THREE = "ems:experiment, ems:lab or ems:cluster"


@dataclass(frozen=True)
class StackFile:
    """A stack file as it is written: `data` is the value of `ems:<kind>`, not validated yet.

    `lines` maps the dotted keys of faults (`ems:experiment.code.paths[0]`) to lines, counted from 1.
    """

    path: Path
    kind: Kind
    data: object
    lines: Mapping[str, int]
    odd: Mapping[str, str]  # plain scalars that other readers of YAML take for something else, by dotted key


def read(path: Path) -> StackFile:
    """What `path` says. StackFileError: it is missing, no YAML, or has not exactly one of the three kinds."""
    _expect_file(path)
    content, located, written = yamlfile.read_closely(path)
    odd = {dotted(at[1:]): text for at, text in written.items() if at[1:2] and str(at[1]).startswith("ems:")}
    lines = {dotted(at[1:]): line for at, line in located.items() if at[0] == "config" and len(at) > 1}
    top = {str(at[0]): line for at, line in located.items() if len(at) == 1}
    config = _config(path, content, top)
    faults = [*_foreign_keys(content, PULUMI_KEYS), *_config_faults(config)]
    kinds = [kind for kind in KINDS if dotted((f"ems:{kind}",)) in lines]
    if not faults and len(kinds) == 1:
        return StackFile(path, kinds[0], config[f"ems:{kinds[0]}"], lines, odd)
    raise StackFileError(placed([*faults, *_kind_faults(kinds, config)], path, {**top, **lines}))


def load(path: Path, places: Places = NO_PLACES) -> Spec:
    """The spec in `path`, `places` as for `spec.parse`. StackFileError has every fault, with file and line."""
    return parse(read(path), places)


def parse(file: StackFile, places: Places = NO_PLACES) -> Spec:
    """The same, of a file that was read."""
    try:
        return specs.parse(file.kind, file.data, places)
    except StackFileError as error:
        raise StackFileError(placed(error.faults, file.path, file.lines)) from error


def meaning(data: bytes) -> object:
    """What the content of a stack file says, the same before and after Pulumi has rewritten it and added its own keys.

    The bytes themselves if they are no YAML that Pulumi reads.
    """
    try:
        content, _ = yamlfile.parse(data, Path())
    except StackFileError:
        return data
    if not isinstance(content, dict):
        return content
    said = {key: rewritten(value) for key, value in content.items() if key not in WRITTEN_BY_PULUMI}
    if isinstance(settings := content.get("config"), dict):
        said["config"] = {key: rewritten_setting(value) for key, value in settings.items()}
    return said


def locate(faults: Iterable[Fault], path: Path) -> list[Fault]:
    """`faults` of what Pulumi handed over, with file and line. StackFileError if the file itself cannot be read."""
    return placed(faults, path, read(path).lines)


def references(experiment: Mapping[str, object], known: Mapping[str, Collection[str]]) -> list[Fault]:
    """A fault, without file and line, for each of the keys `known` whose name the lab does not have.

    `experiment`: what stands below `ems:experiment`, which may have other faults.
    """
    return [
        Fault(dotted(("ems:experiment", key)), f"is {show(name)}, which the lab does not have: {nearest(name, there)}")
        for key, there in known.items()
        if isinstance(name := experiment.get(key), str) and name not in there
    ]


def _expect_file(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        problem = "is a folder: allowed is a stack file, Pulumi.STACK.yaml"
    elif path.exists():
        problem = "is not a regular file: allowed is a stack file, Pulumi.STACK.yaml"
    else:
        problem = f"does not exist: {_stacks_beside(path)}. `ems new STACK` makes one"
    raise StackFileError([Fault("", problem, str(path))])


def _stacks_beside(path: Path) -> str:
    names = [file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in path.parent.glob("Pulumi.*.yaml")]
    return nearest(path.name.removeprefix("Pulumi.").removesuffix(".yaml"), names)


def _config(path: Path, content: object, top: Mapping[str, int]) -> dict[str, object]:
    """The mapping below `config:`; StackFileError has the one fault if there is none."""
    problem, line = "", 1
    if content is None:
        problem, line = f"is empty: allowed is `config:` with {_THREE} below it", 0
    elif not isinstance(content, dict):
        problem = f"is {show(content)}: allowed is a mapping with the key `config:`"
    elif "config" not in content:
        problem, line = f"has no `config:`: {_instead(content)}", 0
    elif not isinstance(content["config"], dict):
        problem = f"`config:` is {show(content['config'])}: allowed is a mapping with {_THREE}"
        line = top["config"]
    else:
        return content["config"]
    raise StackFileError([Fault("", problem, str(path), line)])


def _instead(content: Mapping[str, object]) -> str:
    if content and set(content) <= set(WRITTEN_BY_PULUMI):
        return "it has only what Pulumi writes, as after a stack file was renamed: delete it"
    if stray := [key for key in content if key.startswith("ems:")]:
        return f"{plain(stray[0])} stands at the top; put it below `config:`, indented"
    return f"allowed is `config:` with {_THREE} below it"


def _foreign_keys(content: object, known: Iterable[str]) -> Iterator[Fault]:
    allowed = ["config", *known]
    for key, value in cast(dict[str, object], content).items():
        if key not in allowed:
            yield Fault(dotted((key,)), f"is not a key of a stack file: {nearest(key, allowed)}")
        if key in WRITTEN_BY_PULUMI and isinstance(value, dict | list):
            yield Fault(dotted((key,)), f"is {show(value)}: allowed is text, which Pulumi writes by itself")


def _config_faults(config: Mapping[str, object]) -> Iterator[Fault]:
    """Unknown `ems:` keys, and secrets in those that no schema reads; other programs' keys are theirs."""
    allowed = [*(f"ems:{kind}" for kind in KINDS), *PROJECT_KEYS]
    for key, value in config.items():
        yield from setting_faults(key, value)
        if key.startswith("ems:") and key not in allowed:
            yield Fault(dotted((key,)), f"is not a key here: {nearest(key, allowed)}")
        if key in PROJECT_KEYS and next(secrets(value), None) is not None:
            yield Fault(dotted((key,)), specs.SECRET)
        elif key in PROJECT_KEYS:
            yield Fault(dotted((key,)), "stands in a stack file, where it has no effect: it belongs in Pulumi.yaml")


def _kind_faults(kinds: list[Kind], config: Mapping[str, object]) -> Iterator[Fault]:
    if len(kinds) > 1:
        both = " and ".join(f"ems:{kind}" for kind in kinds)
        yield Fault(
            f"ems:{kinds[1]}", f"stands beside another kind (it has {both}): allowed is exactly one of {_THREE}"
        )
    if not kinds and not any(key.startswith("ems:") and key not in PROJECT_KEYS for key in config):
        yield Fault("config", f"has none of the three kinds: allowed is exactly one of {_THREE}")
