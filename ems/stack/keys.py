"""Keys of a stack file: how a fault names them, and what concerns several of them at once. Pure."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ems.base.errors import Fault
from ems.base.messages import nearest, plain, show
from ems.stack import result_faults

PROJECT_KEYS = ("ems:lab_id", "ems:database", "ems:store")  # of Pulumi.yaml: not of a stack file
Location = tuple[int | str, ...]
Problem = tuple[Location, str]
T = TypeVar("T")


class Problems(ValueError):
    """Several problems of one value, each with the keys that lead from the value to it."""

    def __init__(self, located: Sequence[Problem]) -> None:
        super().__init__("; ".join(problem for _, problem in located))
        self.located = tuple(located)


@dataclass
class Collector:
    """Goes on after a problem, so that all are found."""

    located: list[Problem] = field(default_factory=list)

    def at(self, where: Location, check: Callable[[Any], T], value: object) -> T | None:
        """What `check` makes of `value`; None, and its problems noted, if it refuses."""
        try:
            return check(value)
        except Problems as several:
            self.located += [((*where, *below), problem) for below, problem in several.located]
        except ValueError as error:
            self.located.append((where, str(error)))
        return None

    def of_each(self, where: Location, check: Callable[[Any], T], value: object, allowed: str) -> dict[Location, T]:
        """What `check` makes of `value`, or of its items if it is a list, by where they stand."""
        if isinstance(value, list | tuple):
            if not value:
                self.located.append((where, f"is empty: allowed is {allowed}"))
            items: list[tuple[Location, object]] = [((*where, place), item) for place, item in enumerate(value)]
        else:
            items = [(where, value)]
        return {place: kept for place, item in items if (kept := self.at(place, check, item)) is not None}

    def finish(self) -> None:
        """Problems with all that were noted, if there are any."""
        if self.located:
            raise Problems(self.located)


def dotted(location: Location) -> str:
    """The key of a fault: ("ems:experiment", "code", "paths", 0) → `ems:experiment.code.paths[0]`; odd keys quoted."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{_part(part)}" for part in location]
    return "".join(parts).removeprefix(".")


def placed(faults: Iterable[Fault], path: Path, lines: Mapping[str, int]) -> list[Fault]:
    """`faults` with the file and their lines, in the order of the file. `lines`: of dotted keys."""
    found = [dataclasses.replace(fault, file=str(path), line=_line_of(fault.key, lines)) for fault in faults]
    return sorted(found, key=lambda fault: (not fault.key, fault.line))


def _line_of(key: str, lines: Mapping[str, int]) -> int:
    """The line of `key`, or of the nearest key above it that the file has."""
    while key and key not in lines:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return lines.get(key, 0)


def _part(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_:-]+", name) else show(name)


def secrets(data: object) -> Iterator[Location]:
    """Where `data` has a mapping that Pulumi would take for a secret: its one key is `secure`."""
    left: list[tuple[Location, object]] = [((), data)]
    while left:
        location, value = left.pop()
        if isinstance(value, dict) and set(value) == {"secure"}:
            yield location
        elif isinstance(value, dict):
            left += [((*location, key), item) for key, item in value.items() if isinstance(item, dict | list)]
        elif isinstance(value, list):
            left += [((*location, index), item) for index, item in enumerate(value) if isinstance(item, dict | list)]


def below(key: str, faults: list[Fault]) -> bool:
    """Whether `key` is the key of one of the faults, or stands below one."""
    return any(key == fault.key or key.startswith((fault.key + ".", fault.key + "[")) for fault in faults)


def across(kind: str, data: object, kinds: list[str]) -> Iterator[Fault]:
    """What concerns several keys, read from the raw data so that other faults do not hide it."""
    if kind == "lab":
        yield from _tree_faults(_mapping(_mapping(data).get("projects")))
    if kind == "experiment":
        yield from _place_faults(_mapping(data), kinds)
        yield from _code_faults(_mapping(_mapping(data).get("code")))
        yield from _input_faults(_mapping(_mapping(data).get("inputs")))
        job, results = (_mapping(_mapping(data).get(key)) for key in ("job", "results"))
        for where, problem in result_faults.problems(job, results):
            yield Fault(dotted(("ems:experiment", "results", *where)), problem)
        yield from _round_faults(_mapping(_mapping(data).get("job")), _mapping(_mapping(data).get("limits")))
        yield from _setup_faults(_mapping(_mapping(data).get("job")))


def _round_faults(job: Mapping[Any, Any], limits: Mapping[Any, Any]) -> Iterator[Fault]:
    """A sweep has a grid, or what proposes its rounds; only rounds have limits of their own."""
    given = map(str, job)
    if "function" in job and not any(get_close_matches(name, ("sweep", "propose"), cutoff=0.7) for name in given):
        problem = "is missing: allowed is a grid, as {n: [1, 2]}, or `propose: package.module:name`, or both"
        yield Fault(dotted(("ems:experiment", "job", "sweep")), problem)
    for name in ("max_points", "max_rounds"):
        if limits.get(name) is not None and job.get("propose") is None:
            problem = "is for a job with `propose`: allowed is to leave it out"
            yield Fault(dotted(("ems:experiment", "limits", name)), problem)


def _code_faults(code: Mapping[Any, Any]) -> Iterator[Fault]:
    if code.get("repo") is not None and code.get("commit", "HEAD") == "HEAD":
        problem = "is HEAD: with `repo` allowed is a full commit hash; `git ls-remote URL` prints those of its branches"
        yield Fault(dotted(("ems:experiment", "code", "commit")), problem)
    paths = code.get("paths")
    seen: dict[str, int] = {}
    for index, path in enumerate(paths if isinstance(paths, list | tuple) else ()):
        if isinstance(path, str) and seen.setdefault(str(PurePosixPath(path)), index) != index:
            problem = f"is {show(path)}, which is listed before: allowed is each path once"
            yield Fault(dotted(("ems:experiment", "code", "paths", index)), problem)


def _setup_faults(job: Mapping[Any, Any]) -> Iterator[Fault]:
    where = ("ems:experiment", "job")
    if job.get("setup") is None:
        if job.get("setup_timeout_s") is not None:
            yield Fault(dotted((*where, "setup_timeout_s")), "is for `setup`, which is not there: leave it out")
        return
    for axis in _axes(job.get("sweep")):
        if axis[-1] == "context":
            problem = "is the keyword by which the function is given what `setup` returns: allowed is another name"
            yield Fault(dotted((*where, "sweep", *axis)), problem)


def _axes(sweep: object) -> Iterator[Location]:
    """Where the raw data has axes: in a grid or several, and in what they zip."""
    for above, grid in _each(sweep):
        yield from ((*above, str(name)) for name in grid)
        for place, group in _each(grid.get("zip")):
            yield from ((*above, "zip", *place, str(name)) for name in group)


def _each(value: object) -> Iterator[tuple[Location, Mapping[Any, Any]]]:
    """A mapping, or those of a list, each by where it stands."""
    if isinstance(value, list | tuple):
        yield from (((number,), _mapping(item)) for number, item in enumerate(value))
    else:
        yield (), _mapping(value)


def _input_faults(inputs: Mapping[Any, Any]) -> Iterator[Fault]:
    names: dict[str, str] = {}
    urls: dict[str, str] = {}
    for name in map(str, inputs):
        where, url = ("ems:experiment", "inputs", name), _mapping(inputs.get(name)).get("url")
        if (first := names.setdefault(name.lower(), name)) != name:
            problem = f"differs from {plain(first)} only in case, which not all disks distinguish: allowed is another"
            yield Fault(dotted(where), problem)
        if isinstance(url, str) and (first := urls.setdefault(url, name)) != name:
            yield Fault(dotted((*where, "url")), f"is that of {plain(first)}, too: allowed is each file once")


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _place_faults(experiment: Mapping[Any, Any], kinds: list[str]) -> Iterator[Fault]:
    place = experiment.get("cluster")
    if not isinstance(place, dict):
        return
    key = dotted(("ems:experiment", "cluster"))
    given = [name for name in ("kind", "stack") if place.get(name) is not None]
    if len(given) == 2:
        both = f"kind ({show(place['kind'])}) and stack ({show(place['stack'])})"
        yield Fault(key, f"has {both}: allowed is exactly one of the two")
    if not given:
        yield Fault(key, f"has neither kind nor stack: allowed is exactly one; kinds: {', '.join(kinds)}")


def _tree_faults(projects: Mapping[Any, Any]) -> Iterator[Fault]:
    given = {name: _mapping(project).get("parent") for name, project in projects.items()}
    parents = {str(name): parent for name, parent in given.items() if isinstance(parent, str)}
    for name, parent in parents.items():
        key = dotted(("ems:lab", "projects", name, "parent"))
        if parent not in projects:
            yield Fault(key, f"is {show(parent)}, which is not a project: {nearest(parent, map(str, projects))}")
    for cycle in _cycles(parents):
        key = dotted(("ems:lab", "projects", cycle[0], "parent"))
        path = " → ".join(map(plain, [*cycle, cycle[0]]))
        yield Fault(key, f"is {show(parents[cycle[0]])}, which closes a circle ({path}): allowed is a tree")


def _cycles(parents: Mapping[str, str]) -> Iterator[list[str]]:
    done: set[str] = set()
    for start in parents:
        path: dict[str, None] = {}
        name: str | None = start
        while name is not None and name not in done and name not in path:
            path[name] = None
            name = parents.get(name)
        if name is not None and name in path:
            names = list(path)
            yield names[names.index(name) :]
        done |= path.keys()


def setting_faults(key: str, value: object) -> Iterator[Fault]:
    """What Pulumi cannot take in any file: a key of three parts, a number that is none in what is not EMS's own."""
    if not re.fullmatch("[^:]*(:(config:)?[^:]*)?", key):
        yield Fault(dotted((key,)), "is not a key of Pulumi: allowed is NAMESPACE:NAME, as aws:region")
    if not key.startswith("ems:") and not all(map(math.isfinite, _floats(value))):
        yield Fault(dotted((key,)), "has a number that is not finite, which Pulumi cannot hand over: quote it")


def _floats(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _floats(item)
