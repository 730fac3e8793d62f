"""A sweep's points, by number. Nothing is expanded: a hundred million points take no more memory than one.

A sweep is one grid or several, whose points follow one another. A grid maps the name of each parameter to its values,
in one of the forms of `ems.sweep.axes`; its key `zip` lists groups of axes of one length that move together:

    n: [100, 200]
    seed: {count: 50}
    zip: [{mean: [0, 1], scale: [1, 5]}]

Point i does not depend on the order of keys: axes are sorted by name, a zip group stands where its smallest name does,
values keep their order and the last axis varies fastest. A parameter has one type in the whole sweep: whole numbers
become doubles where one of its values is written with a point. A parameter that a grid lacks is left out of that grid's
points.

Standard library alone, Python 3.9 or newer: it is shipped with every sweep.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice, repeat
from typing import Any

from ems.sweep.axes import Scalar, ScalarType, Values, joined, spelled, type_of, typed, values_of


class OtherType(ValueError):
    """A parameter's type in a sweep, and another one that it would have in more grids."""

    def __init__(self, name: str, known: ScalarType, found: ScalarType) -> None:
        super().__init__(f"{name} is {found}, and was {known}")
        self.name, self.known, self.found = name, known, found


@dataclass(frozen=True)
class Axis:
    """`values[i // stride % len(values)]` is the parameter `name` of a grid's point i."""

    name: str
    values: Values
    stride: int

    def column(self, start: int, stop: int) -> Iterator[Scalar]:
        """The parameter of the points from `start` to `stop` - 1; what comes after them means nothing."""
        first, past = divmod(start, self.stride)
        begin = first % len(self.values)
        head = self.values[begin : begin + (stop - 1) // self.stride - first + 1]
        values = chain(head, chain.from_iterable(repeat(self.values)))
        if self.stride == 1:
            return values
        times = chain([self.stride - past], repeat(self.stride))
        return chain.from_iterable(map(repeat, values, times))


@dataclass(frozen=True)
class Grid:
    """One grid of a sweep. `size`: how many points it has, counted from 0."""

    axes: tuple[Axis, ...]  # by name
    size: int

    def parameters(self, index: int) -> dict[str, Scalar]:
        """The parameters of one of its points, by name in order."""
        return {axis.name: axis.values[index // axis.stride % len(axis.values)] for axis in self.axes}

    def iterate(self, start: int, stop: int) -> Iterator[dict[str, Scalar]]:
        """The parameters of its points `start` to `stop` - 1, as `Sweep.iterate`."""
        columns = [axis.column(start, stop) for axis in self.axes]
        rows = islice(zip(*columns), stop - start)  # noqa: B905  (not before Python 3.10)
        return map(dict, map(zip, repeat([axis.name for axis in self.axes]), rows))


@dataclass(frozen=True)
class Sweep:
    """The points 0 to len - 1 of `grids`; `types` has the type of each parameter, by name in order."""

    grids: tuple[Grid, ...]
    starts: tuple[int, ...]  # the first point of each grid, then the end of all
    types: Mapping[str, ScalarType]

    @classmethod
    def of(cls, grids: Sequence[Mapping[str, Any]]) -> Sweep:
        """The sweep of valid grids, as the JSON of a spec has them (`stack.sweep_grids` finds what is wrong)."""
        return cls((), (0,), {}).extended(grids)

    def extended(self, grids: Sequence[Mapping[str, Any]]) -> Sweep:
        """With the points of more grids after its own, which stay as they are.

        OtherType if a parameter would be of another type than in this sweep.
        """
        grouped = [groups_of(grid) for grid in grids]
        found: dict[str, set[ScalarType]] = {}
        for name, values in chain.from_iterable(group.items() for groups in grouped for group in groups):
            found.setdefault(name, set()).add(type_of(values))
        types = self._with({name: joined(kinds) for name, kinds in found.items()})
        made = tuple(_grid(groups, types) for groups in grouped)
        starts = accumulate((grid.size for grid in made), initial=len(self))
        return Sweep((*self.grids, *made), (*self.starts[:-1], *starts), types)

    def _with(self, found: Mapping[str, ScalarType]) -> dict[str, ScalarType]:
        """The types of all parameters, by name in order; numbers that are whole become doubles among doubles."""
        for name, kind in found.items():
            known = self.types.get(name, kind)
            if kind != known and (known, kind) != ("float64", "int64"):
                raise OtherType(name, known, kind)
        types = {**found, **self.types}
        return {name: types[name] for name in sorted(types)}

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parameters, in order; a point may lack those that its grid does not have."""
        return tuple(self.types)

    def parameters(self, index: int) -> dict[str, Scalar]:
        """The parameters of one point, by name in order. IndexError outside 0 to len - 1."""
        self._expect(index, index + 1)
        place = bisect_right(self.starts, index) - 1
        return self.grids[place].parameters(index - self.starts[place])

    def iterate(self, start: int, stop: int) -> Iterator[dict[str, Scalar]]:
        """The parameters of the points `start` to `stop` - 1: many times faster than one by one.

        IndexError outside 0 to len - 1.
        """
        self._expect(start, stop)
        places = range(bisect_right(self.starts, start) - 1, len(self.grids))
        spans = ((self.grids[place], self.starts[place]) for place in places if self.starts[place] < stop)
        return chain.from_iterable(grid.iterate(max(start - at, 0), min(stop - at, grid.size)) for grid, at in spans)

    def since(self, grid: int) -> Sweep:
        """Only the points of the grids from the one of this number on, counted from 0; they keep their numbers."""
        return Sweep(self.grids[grid:], self.starts[grid:], self.types)

    def identity(self) -> list[dict[str, Any]]:
        """JSON that is equal for sweeps of the same points in the same order, however their axes are written."""
        return [{axis.name: [axis.stride, spelled(axis.values)] for axis in grid.axes} for grid in self.grids]

    def _expect(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"points {start:,} to {stop - 1:,} of a sweep of {len(self):,} points, counted from 0")


def groups_of(grid: Mapping[str, Any]) -> list[dict[str, Values]]:
    """The axes that move together, slowest first."""
    alone = [{name: form} for name, form in grid.items() if name != "zip"]
    groups = sorted([*alone, *grid.get("zip", [])], key=min)
    return [{name: values_of(form) for name, form in group.items()} for group in groups]


def _grid(groups: Sequence[Mapping[str, Values]], types: Mapping[str, ScalarType]) -> Grid:
    axes, stride = [], 1
    for group in reversed(groups):
        axes += [Axis(name, typed(values, types[name]), stride) for name, values in group.items()]
        stride *= len(next(iter(group.values())))
    return Grid(tuple(sorted(axes, key=lambda axis: axis.name)), stride)
