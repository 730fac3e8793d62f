"""What a stack file's `sweep:` says, checked: one grid or a list of grids, in the forms of `ems.sweep`.

Nothing is expanded, so that a grid of 10^12 points has its fault at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ems.base.messages import show
from ems.stack import fields
from ems.stack.checks import Checked
from ems.stack.keys import Collector, Location, Problem
from ems.stack.sweep_axes import FORMS, MOST_POINTS, SAID, axis, shortly
from ems.stack.sweep_axes import SCHEMA as AXIS_SCHEMA
from ems.stack.sweep_forms import recorded
from ems.stack.sweep_overlap import MOST_PARTS, TooManyParts
from ems.stack.sweep_positions import MOST_LOOKED_UP, TooLong
from ems.sweep import axes
from ems.sweep.axes import ScalarType


@dataclass(frozen=True)
class WrittenGrid:
    """A checked grid of a stack file: its axes by name, and groups of axes that move together by where they stand."""

    alone: Mapping[str, Any]
    zipped: Mapping[Location, Mapping[str, Any]]

    def named(self) -> Iterator[tuple[Location, str, Any]]:
        """Each axis: where it stands in the grid, its name, and its values in the form in which they are written."""
        for where, group in [((), self.alone), *self.zipped.items()]:
            yield from (((*where, name), name, form) for name, form in group.items())

    @property
    def json(self) -> dict[str, Any]:
        """The grid as `Sweep.of` takes it."""
        groups = {"zip": list(self.zipped.values())} if self.zipped else {}
        return {**self.alone, **groups}

    def lengths(self) -> dict[str, int]:
        """The length of each axis, but of a zip group only its first."""
        groups = [{name: form} for name, form in self.alone.items()] + list(self.zipped.values())
        return {name: len(axes.values_of(group[name])) for group in groups for name in list(group)[:1]}


def check(value: object) -> tuple[dict[str, Any], ...]:
    """The grids as `Sweep.of` takes them: numbers as they are written, `zip` as a list. Problems has all faults."""
    found = Collector()
    grids = found.of_each((), _grid, value, "a grid, as {name: [1, 2]}, or a list of grids")
    found.located += [*_repeated(grids), *_mixed(grids), *_too_many(list(grids.values()))]
    found.finish()
    given = tuple(grid.json for grid in grids.values())
    found.located += _uncountable(given)
    found.finish()
    return given


def _grid(value: object) -> WrittenGrid:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"is {show(value)}: allowed is a grid, as {{name: {FORMS.partition(', {')[0]}}}")
    found = Collector()
    alone = _axes(found, {name: form for name, form in value.items() if name != "zip"})
    zipped: dict[Location, dict[str, Any]] = {}
    if "zip" in value:
        zipped = found.of_each(("zip",), _group, value["zip"], "axes, as {a: [1, 2], b: [3, 4]}, or a list of such")
    grid = WrittenGrid(alone, zipped)
    found.located += _alike(grid.named())
    found.finish()
    return grid


def _group(value: object) -> dict[str, Any]:
    """Axes that move together."""
    if not isinstance(value, dict) or len(value) < 2:
        raise ValueError(f"is {show(value)}: allowed is two axes or more of one length, as {{a: [1, 2], b: [3, 4]}}")
    found = Collector()
    kept = _axes(found, value)
    found.finish()
    lengths = {name: len(axes.values_of(form)) for name, form in kept.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} ({length:,})" for name, length in lengths.items())
        raise ValueError(f"has axes of different lengths, {said}: allowed is one length, for they move together")
    return kept


def _axes(found: Collector, given: Mapping[Any, object]) -> dict[str, Any]:
    for name in given:
        found.at((name,), fields.AXIS.check, name)
    return {name: found.at((name,), axis, form) for name, form in given.items()}


def _alike(named: Iterator[tuple[Location, str, Any]]) -> Iterator[Problem]:
    """Names that come twice; databases do not distinguish upper from lower case."""
    seen: dict[str, str] = {}
    for where, name, _ in named:
        if name.lower() in seen:
            yield where, f"is {show(name)}, beside {show(seen[name.lower()])}: allowed is each name once, in one case"
        seen.setdefault(name.lower(), name)


def _repeated(grids: Mapping[Location, WrittenGrid]) -> Iterator[Problem]:
    seen: dict[str, Location] = {}
    for where, grid in grids.items():
        first = seen.setdefault(json.dumps(grid.json, sort_keys=True), where)
        if first != where:
            yield where, f"is the same grid as item {first[0]}: allowed is each point once"


def _mixed(grids: Mapping[Location, WrittenGrid]) -> Iterator[Problem]:
    """Where several grids, or the numbers of one axis, do not go together."""
    first: dict[str, tuple[str, ScalarType]] = {}
    types: dict[str, set[ScalarType]] = {}
    located = [((*where, *below), name, form) for where, grid in grids.items() for below, name, form in grid.named()]
    for where, name, form in located:
        kind = axes.type_of(axes.values_of(form))
        spelling, expected = first.setdefault(name.lower(), (name, kind))
        types.setdefault(name, set()).add(kind)
        if spelling != name:
            yield where, f"is {show(name)}, but {show(spelling)} in a grid above: allowed is one way to write it"
        if SAID[kind] != SAID[expected]:
            yield where, f"is {SAID[kind]}, but {SAID[expected]} in a grid above: allowed is one type for a parameter"
    for where, name, form in located:
        if "float64" in types[name] and not _exact(form):
            said = "has whole numbers that no double keeps, while other values make doubles of them"
            yield where, f"{said}: allowed are up to 2^53, or whole numbers alone"


def _exact(form: Any) -> bool:
    """Whether the whole numbers of an axis stay the same as doubles."""
    if isinstance(form, list):
        return all(int(float(value)) == value for value in form if type(value) is int and abs(value) < 2**63)
    if "count" in form:
        return False
    found = axes.progression(form)
    return not found.whole or max(abs(found.first), abs(found.last)) <= 2**53


def _too_many(grids: list[WrittenGrid]) -> Iterator[Problem]:
    lengths = [grid.lengths() for grid in grids]
    magnitude = max((sum(map(math.log10, one.values())) for one in lengths), default=0)
    total = sum(math.prod(one.values()) for one in lengths) if magnitude < 15 else 0
    if magnitude >= 15 or total > MOST_POINTS:
        longest = sorted(((length, name) for one in lengths for name, length in one.items()), reverse=True)[:5]
        said = ", ".join(f"{name} ({length:,})" for length, name in longest)
        yield (), f"has {shortly(magnitude, total)} points: allowed are up to {MOST_POINTS:,}; its longest axes: {said}"


def _uncountable(grids: tuple[dict[str, Any], ...]) -> Iterator[Problem]:
    """Where it cannot be told which points grids share."""
    try:
        recorded(grids)
    except TooLong:
        said = "has grids with axes too long to be compared, value by value"
        yield (), f"{said}: allowed are {MOST_LOOKED_UP:,} values on one of two, or progressions of fewer digits"
    except TooManyParts:
        said = f"has grids that overlap in so many places that over {MOST_PARTS:,} parts of them would be left"
        yield (), f"{said}: allowed is a grid fewer, or `zip` for the same axes in all"


_GROUP = {"type": "object", "additionalProperties": AXIS_SCHEMA, "minProperties": 2}
_ZIP = {
    "oneOf": [_GROUP, {"type": "array", "items": _GROUP, "minItems": 1}],
    "description": "Axes of one length that move together; or a list of such groups.",
}
_GRID = {
    "type": "object",
    "properties": {"zip": _ZIP},
    "patternProperties": {"^(?!zip$)" + fields.AXIS.schema["pattern"][1:]: AXIS_SCHEMA},
    "additionalProperties": False,
    "minProperties": 1,
}
SWEEP = Checked(check, {"oneOf": [_GRID, {"type": "array", "items": _GRID, "minItems": 1}]})
