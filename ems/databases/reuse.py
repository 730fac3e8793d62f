"""Points that a study shares with an earlier one, so that it need not compute them again.

Two grids share points where they have the same axes of the same types, of which the same move together; each axis may
have grown, shrunk or been put in another order. Points are matched by positions on the axes, a run of neighbours at a
time.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from ems.databases import Claim, Database, Experiment, Registration, rounds
from ems.sweep import Axis, Grid, Sweep, exclusion
from ems.sweep.axes import Values, spelled

MOST_LOOKED_UP = 1_000_000  # values of an axis that did not just grow or shrink at its end

Run = tuple[int, int, int]  # neighbours: the first position there, the first one here, how many
Pair = tuple[range, range]  # points there and the same points here


@dataclass(frozen=True)
class Factor:
    """Axes that move together in both grids; `runs`: their common positions, in the order there."""

    stride_there: int
    length_there: int
    stride_here: int
    runs: Sequence[Run]

    def position_here(self, position: int) -> int | None:
        """The position here of a position there; None if it is not one of both."""
        at = bisect_right(self.runs, position, key=itemgetter(0)) - 1
        if at < 0:
            return None
        there, here, count = self.runs[at]
        return here + position - there if position < there + count else None


def count(database: Database, registration: Registration) -> int:
    """How many points of a new experiment are those of earlier ones."""
    found = 0
    if sources := database.reusable(registration):
        sweep = Sweep.of(rounds.first_grids(registration))
        done = bytearray(left_out(registration) or (len(sweep) + 7) // 8)
        found = sum(len(here) for source in sources for _, here in reusable_points(database, source, sweep, done))
    return found


def copy(
    database: Database, claim: Claim, registration: Registration, done: bytearray, go_on: Callable[[], None]
) -> int:
    """Copy what earlier experiments have of the points that are not `done`; how many that were.

    `go_on` is called now and then, and raises to stop it: what was copied by then stays.
    """
    sources = database.reusable(registration)
    sweep = rounds.sweep_of(database, registration) if sources else Sweep.of([])
    return copy_from(database, claim, sources, sweep, done, go_on)


def copy_from(
    database: Database,
    claim: Claim,
    sources: Sequence[Experiment],
    sweep: Sweep,
    done: bytearray,
    go_on: Callable[[], None],
) -> int:
    """The same of these experiments, for the points of `sweep`."""
    copied = (
        database.copy_points(claim, source.id, _pairs(database, source, sweep, done, go_on)) for source in sources
    )
    return sum(copied)


def _pairs(
    database: Database, source: Experiment, sweep: Sweep, done: bytearray, go_on: Callable[[], None]
) -> Iterator[tuple[int, int]]:
    for there, here in reusable_points(database, source, sweep, done):
        go_on()
        yield from zip(there, here, strict=True)


def reusable_points(database: Database, source: Experiment, sweep: Sweep, done: bytearray) -> Iterator[Pair]:
    """Points of `source` that are points of `sweep`, too, and whose bits in `done` (i % 8 of byte i // 8) are not set;
    they are set then."""
    earlier = rounds.sweep_of(database, source.registration)
    stored = (points for state, points in database.points(source.id) if state in {"stored", "empty"})
    for there, here in shared(earlier, sweep, stored):
        for start, stop in _claimed(here, done):
            yield there[start:stop], here[start:stop]


def left_out(registration: Registration) -> bytes:
    """The bitmap of the points that the registration's spec leaves out; b"" where it leaves out none."""
    return exclusion.of_job(json.loads(registration.spec)["job"])


def _claimed(points: range, done: bytearray) -> Iterator[tuple[int, int]]:
    """Stretches of `points` whose bits are not set, as positions in it; sets them."""
    for is_open, stretch in groupby(enumerate(points), key=lambda item: not done[item[1] // 8] >> item[1] % 8 & 1):
        if is_open:
            found = list(stretch)
            for _, point in found:
                done[point // 8] |= 1 << point % 8
            yield found[0][0], found[-1][0] + 1


def shared(earlier: Sweep, sweep: Sweep, stored: Iterable[range]) -> Iterator[Pair]:
    """Of the points `stored` (neighbours) of an earlier sweep, those that `sweep` has too, with their numbers in it."""
    matched = [
        (at_there, there.size, at_here, factors)
        for at_there, there in zip(earlier.starts, earlier.grids, strict=False)
        for at_here, here in zip(sweep.starts, sweep.grids, strict=False)
        if (factors := factors_of(there, here, earlier, sweep)) is not None
    ]
    if not matched:
        return
    for points in stored:
        for at_there, size, at_here, factors in matched:
            inside = range(max(points.start - at_there, 0), min(points.stop - at_there, size))
            for there, here in _walk(inside, factors):
                yield _moved(there, at_there), _moved(here, at_here)


def _moved(points: range, by: int) -> range:
    return range(points.start + by, points.stop + by, points.step)


def _walk(points: range, factors: Sequence[Factor]) -> Iterator[Pair]:
    """The points of a grid that the other has, too; the last factor varies fastest in this one."""
    *outer, inner = factors
    if not points:
        return
    for base in range(points.start - points.start % inner.length_there, points.stop, inner.length_there):
        offset = _offset(base, outer)
        if offset is None:
            continue
        for there, here, count in inner.runs:
            first = max(points.start - base, there)
            last = min(points.stop - base, there + count)
            if first < last:
                start = offset + (here + first - there) * inner.stride_here
                yield (
                    range(base + first, base + last),
                    range(start, start + (last - first - 1) * inner.stride_here + 1, inner.stride_here),
                )


def _offset(point: int, factors: Sequence[Factor]) -> int | None:
    offset = 0
    for factor in factors:
        position = factor.position_here(point // factor.stride_there % factor.length_there)
        if position is None:
            return None
        offset += position * factor.stride_here
    return offset


def factors_of(there: Grid, here: Grid, earlier: Sweep, sweep: Sweep) -> list[Factor] | None:
    """How two grids go together, the slowest factor there first; None if they do not."""
    axes_there, axes_here = ({axis.name: axis for axis in grid.axes} for grid in (there, here))
    if axes_there.keys() != axes_here.keys() or any(earlier.types[name] != sweep.types[name] for name in axes_there):
        return None  # a function may compute something else with 1.0 than with 1
    factors = []
    for names in _moving_together(there, here):
        alike = [[axes[name] for name in names] for axes in (axes_there, axes_here)]
        if not all(map(_is_one, alike)):
            return None
        (first_there, *_), (first_here, *_) = alike
        runs = _common([axis.values for axis in alike[0]], [axis.values for axis in alike[1]])
        factors.append(Factor(first_there.stride, len(first_there.values), first_here.stride, runs))
    return sorted(factors, key=lambda factor: (factor.length_there == 1, factor.stride_there), reverse=True)


def _moving_together(*grids: Grid) -> list[frozenset[str]]:
    """Names of the axes that move together in one of the grids at least."""
    sets: list[frozenset[str]] = []
    for grid in grids:
        for axis in grid.axes:
            together = frozenset(
                other.name for other in grid.axes if other is axis or (len(axis.values) > 1 and _is_one([axis, other]))
            )
            touched = [names for names in sets if names & together]
            sets = [names for names in sets if not names & together] + [together.union(*touched)]
    return sets


def _is_one(axes: Sequence[Axis]) -> bool:
    """Whether these axes of a grid have one position."""
    lengths = {len(axis.values) for axis in axes}
    return lengths == {1} or len({(len(axis.values), axis.stride) for axis in axes}) == 1


def _common(there: Sequence[Values], here: Sequence[Values]) -> list[Run]:
    count = min(len(there[0]), len(here[0]))
    if [spelled(values[:count]) for values in there] == [spelled(values[:count]) for values in here]:
        return [(0, 0, count)]
    if max(len(there[0]), len(here[0])) > MOST_LOOKED_UP:
        return []
    positions = {values: i for i, values in enumerate(zip(*here, strict=True))}
    found = ((i, positions.get(values)) for i, values in enumerate(zip(*there, strict=True)))
    pairs = [(i, position) for i, position in found if position is not None]
    runs = groupby(enumerate(pairs), key=lambda item: (item[1][0] - item[0], item[1][1] - item[0]))
    stretches = ([pair for _, pair in run] for _, run in runs)
    return [(stretch[0][0], stretch[0][1], len(stretch)) for stretch in stretches]
