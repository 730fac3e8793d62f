"""What a proposer answered, checked: points or grids as a sweep can be extended by. Pure.

Grids are those of a stack file. Points become grids whose axes move together, one for each stretch of points with the
same names; unlike a grid's, they may have a value, or a whole point, again and again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from ems.base.messages import show
from ems.spool.kinds import is_exact
from ems.stack import fields, sweep_grids
from ems.stack.keys import Collector, Problem, dotted
from ems.stack.sweep_axes import MOST_POINTS, SAID
from ems.stack.sweep_forms import Grid, recorded
from ems.sweep import OtherType, Sweep
from ems.sweep.axes import ScalarType, type_of

MOST_SHOWN = 5  # problems
Point = Mapping[str, Any]


class Unusable(ValueError):
    """What was proposed cannot be computed; says why."""


def grids_of(answer: Mapping[str, Any]) -> tuple[Grid, ...]:
    """The grids of what `ems.node.driver.proposal` made of an answer; none where nothing was proposed. Unusable."""
    found = Collector()
    if answer.get("grids"):
        checked = found.at((), sweep_grids.check, answer["grids"])
        _finish(found, "grids")
        return recorded(checked or ())
    points = answer.get("points", [])
    found.located += _faults(points)
    _finish(found, "points")
    return tuple(_grid(list(alike)) for _, alike in groupby(points, key=sorted))


def extended(sweep: Sweep, grids: Sequence[Grid]) -> Sweep:
    """The sweep with these grids. Unusable if a parameter is of another type in them, or if there are too many points.

    A function may compute something else with 1.0 than with 1, so numbers that were whole stay whole.
    """
    try:
        grown = sweep.extended(grids)
        _refuse_cases(grown)
    except OtherType as error:
        raise Unusable(_said_of(error)) from error
    if len(grown) > MOST_POINTS:
        raise Unusable(f"there would be {len(grown):,} points: allowed are up to {MOST_POINTS:,}")
    return grown


def _refuse_cases(sweep: Sweep) -> None:
    """Databases do not distinguish upper from lower case."""
    spelled: dict[str, str] = {}
    for name in sweep.names:
        if (first := spelled.setdefault(name.lower(), name)) != name:
            raise Unusable(f"{name} is there beside {first}: allowed is one way to write it")


def _said_of(error: OtherType) -> str:
    if (error.known, error.found) == ("int64", "float64"):
        allowed = f"allowed are whole ones, as int(x); or write its first ones with a point, as {error.name}: [1.0]"
        return f"{error.name} has numbers with a point, but whole ones in the rounds before: {allowed}"
    said = f"{SAID[error.found]}, but {SAID[error.known]} in the rounds before"
    return f"{error.name} is {said}: allowed is one type for a parameter"


def _finish(found: Collector, whose: str) -> None:
    if problems := found.located:
        said = [f"{dotted((whose, *where))} {problem}" for where, problem in problems[:MOST_SHOWN]]
        more = [f"and {len(problems) - MOST_SHOWN:,} more"] if len(problems) > MOST_SHOWN else []
        raise Unusable("; ".join([*said, *more]))


def _faults(points: Sequence[Point]) -> Iterator[Problem]:
    """Of names and values, each point; then of what is of several types."""
    found = Collector()
    for name in dict.fromkeys(name for point in points for name in point):
        found.at((name,), fields.AXIS.check, name)
    types: dict[str, dict[ScalarType, Any]] = {}
    for place, point in enumerate(points):
        if not point:
            found.located.append(((place,), "has no parameter: allowed is a point as {'n': 10}"))
        for name, value in point.items():
            if found.at((place, name), _scalar, value) is not None:
                types.setdefault(name, {}).setdefault(type_of((value,)), value)
    yield from found.located
    yield from _mixed(types)
    yield from _inexact(points, {name for name, kinds in types.items() if "float64" in kinds})


def _scalar(value: object) -> Any:
    allowed = "text, a number, true or false"
    if value is None:
        raise ValueError(f"is {show(value)}: allowed is {allowed}")
    return fields.check_scalar(value, allowed)


def _mixed(types: Mapping[str, Mapping[ScalarType, Any]]) -> Iterator[Problem]:
    for name, kinds in types.items():
        if len({SAID[kind] for kind in kinds}) > 1:
            values = " and ".join(map(show, kinds.values()))
            yield (name,), f"is {values} in one round: allowed is one type for a parameter"


def _inexact(points: Sequence[Point], doubles: set[str]) -> Iterator[Problem]:
    for place, point in enumerate(points):
        for name in doubles & point.keys():
            if type(point[name]) is int and not is_exact(point[name]):
                problem = f"is {point[name]}, which no double keeps, among numbers with a point"
                yield (place, name), f"{problem}: allowed are whole numbers up to 2^53 beside them"


def _grid(points: Sequence[Point]) -> Grid:
    axes = {name: [point[name] for point in points] for name in sorted(points[0])}
    return axes if len(points) == 1 or len(axes) == 1 else {"zip": [axes]}
