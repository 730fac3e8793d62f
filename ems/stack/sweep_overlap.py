"""Grids that share points, made into grids that share none: each combination of parameters is computed once.

What an earlier grid has is left out of the later ones, which are cut along their axes for it: nothing is expanded, so
that grids of 10^8 points are compared as fast as small ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ems.stack.sweep_positions import Positions, common, meet
from ems.sweep.axes import Ratios, Seeds, Values

MOST_PARTS = 1000  # grids
MOST_LISTED = 1000  # values of an axis that is left with gaps: longer ones are cut into parts without any

Group = Mapping[str, Values]  # axes that move together
Box = tuple[Group, ...]  # a grid: all combinations of what its groups have


class TooManyParts(ValueError):
    """A grid would be cut into too many."""


def disjoint(grids: Sequence[Box]) -> Iterator[list[Box]]:
    """Of each grid what those above it lack, as grids of which no two share a point; none if they have it all.

    TooManyParts, or TooLong where two axes cannot be compared.
    """
    count = 0
    for place, grid in enumerate(grids):
        parts = [grid]
        for earlier in grids[:place]:
            parts = [rest for part in parts for rest in _without(part, earlier)]
            if count + len(parts) > MOST_PARTS:
                raise TooManyParts
        count += len(parts)
        yield parts


def size(box: Box) -> int:
    """How many points it has."""
    found = 1
    for group in box:
        found *= _length(group)
    return found


def form(values: Values) -> Any:
    """The values of an axis as `Sweep.of` takes them."""
    if isinstance(values, Seeds) and values.numbers.step == 1:
        numbers = values.numbers
        return {"count": len(numbers), "root": values.root, "bits": values.bits, "first": numbers.start}
    if isinstance(values, Ratios) and len(values) > MOST_LISTED:
        numerators = values.numerators
        return {"ratios": [numerators.start, numerators.step, len(numerators), values.denominator]}
    if isinstance(values, range) and len(values) > MOST_LISTED:
        return {"range": [values[0], values[-1], values.step]}
    return list(values)


def _without(part: Box, earlier: Box) -> Iterator[Box]:
    """What `earlier` lacks of `part`."""
    if {name for group in part for name in group} != {name for group in earlier for name in group}:
        yield part
        return
    if across := next((group for group in earlier if not any(group.keys() <= own.keys() for own in part)), None):
        yield from _without_each(part, earlier, across)
        return
    shared = [_shared(group, earlier) for group in part]
    if not all(shared):
        yield part
        return
    for place, (group, positions) in enumerate(zip(part, shared, strict=True)):
        before = [_picked(own, found) for own, found in zip(part[:place], shared[:place], strict=True)]
        for rest in _rest(group, positions):
            yield (*before, rest, *part[place + 1 :])


def _without_each(part: Box, earlier: Box, across: Group) -> Iterator[Box]:
    """Where `earlier` has a group of axes of which some move alone in `part`: its positions are taken one by one."""
    place, own = next((place, own) for place, own in enumerate(part) if own.keys() & across.keys())
    names = sorted(own.keys() & across.keys())
    mine, theirs = [own[name] for name in names], [across[name] for name in names]
    here, there = common(mine, theirs), common(theirs, mine)
    if len(here) > MOST_PARTS:
        raise TooManyParts
    for rest in _rest(own, here):
        yield (*part[:place], rest, *part[place + 1 :])
    others = [group for group in earlier if group is not across]
    partners = {tuple(values[position] for values in theirs): position for position in there}
    for position in here:
        partner = partners[tuple(values[position] for values in mine)]
        alone = [{name: values[partner : partner + 1]} for name, values in across.items()]
        one = (*part[:place], _picked(own, range(position, position + 1)), *part[place + 1 :])
        yield from _without(one, (*others, *alone))


def _shared(group: Group, earlier: Box) -> Positions:
    """The positions of a group that another grid has."""
    found: Positions = range(_length(group))
    for other in earlier:
        if other.keys() <= group.keys():
            found = meet(found, common([group[name] for name in other], list(other.values())))
    return found


def _rest(group: Group, positions: Positions) -> Iterator[Group]:
    """A group without these positions: as one that lists its values if it is short, else in parts without gaps."""
    length = _length(group)
    stretches = _stretches(length, positions)
    if len(stretches) > 1 and length <= MOST_LISTED:
        taken = frozenset(positions)
        yield _picked(group, [position for position in range(length) if position not in taken])
    elif len(stretches) > MOST_PARTS:
        raise TooManyParts
    else:
        yield from (_picked(group, stretch) for stretch in stretches)


def _stretches(length: int, positions: Positions) -> list[range]:
    """The other positions below `length`: neighbours, or every second, third, … of them if that makes fewer."""
    if isinstance(positions, range) and 1 < positions.step < len(positions):
        ends = [range(positions[0]), range(positions[-1] + 1, length)]
        between = [range(positions[0] + by, positions[-1], positions.step) for by in range(1, positions.step)]
        return [stretch for stretch in (ends[0], *between, ends[1]) if stretch]
    if isinstance(positions, range) and positions.step == 1:
        return [stretch for stretch in (range(positions.start), range(positions.stop, length)) if stretch]
    return [range(one + 1, other) for one, other in pairwise([-1, *positions, length]) if one + 1 < other]


def _picked(group: Group, positions: Positions) -> Group:
    if isinstance(positions, range):
        return {name: values[positions.start : positions.stop : positions.step] for name, values in group.items()}
    return {name: tuple(values[position] for position in positions) for name, values in group.items()}


def _length(group: Group) -> int:
    return len(next(iter(group.values())))
