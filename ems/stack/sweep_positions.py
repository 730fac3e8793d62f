"""Where the values of one axis are found on another, without going through long ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from ems.sweep import seeds
from ems.sweep.axes import Ratios, Seeds, Values, spelled

MOST_LOOKED_UP = 1_000_000  # values
Positions = Sequence[int]  # ascending
Finder = Callable[[Any], "int | None"]


class TooLong(ValueError):
    """Two axes are too long to be compared value by value, and of no form that can be compared otherwise."""


def common(here: Sequence[Values], there: Sequence[Values]) -> Positions:
    """The positions of `here` whose values are found `there`, both of one axis or of several that move together.

    No axis has a value twice. TooLong if that cannot be told.
    """
    count = min(len(here[0]), len(there[0]))
    if [spelled(values[:count]) for values in here] == [spelled(values[:count]) for values in there]:
        return range(count)
    if len(here) == 1 and (found := _calculated(here[0], there[0])) is not None:
        return found
    if count > MOST_LOOKED_UP:
        raise TooLong
    if len(here[0]) == count:
        find = finder(there)
        return [position for position, row in enumerate(zip(*here, strict=True)) if find(row) is not None]
    find = finder(here)
    return sorted(position for row in zip(*there, strict=True) if (position := find(row)) is not None)


def meet(one: Positions, other: Positions) -> Positions:
    """The positions that are in both."""
    if isinstance(one, range) and isinstance(other, range):
        return _meet(one, other)
    if isinstance(one, range):
        one, other = other, one
    among = other if isinstance(other, range) else frozenset(other)
    return [position for position in one if position in among]


def finder(axes: Sequence[Values]) -> Finder:
    """Finds the position of a tuple of values on axes that move together."""
    first = _finder(axes[0])

    def find(row: Sequence[Any]) -> int | None:
        position = first(row[0])
        same = position is not None and all(values[position] == value for values, value in zip(axes, row, strict=True))
        return position if same else None

    return find


def _finder(values: Values) -> Finder:
    if isinstance(values, range):
        return lambda value: values.index(value) if value in values else None
    if isinstance(values, Ratios):
        return lambda value: _nearest(values, value)
    if isinstance(values, Seeds) and values.bits == seeds.BITS:
        return lambda value: _seed_position(values, value)
    return {value: position for position, value in enumerate(values)}.get


def _nearest(values: Ratios, value: float) -> int | None:
    numerators = values.numerators
    near = round((Fraction(value) * values.denominator - numerators.start) / numerators.step)
    around = range(max(near - 1, 0), min(near + 2, len(values)))
    return next((position for position in around if values[position] == value), None)


def _seed_position(values: Seeds, value: int) -> int | None:
    if not 0 <= value < 2**seeds.BITS:
        return None
    number = seeds.number_of(values.root, value)
    return values.numbers.index(number) if number in values.numbers else None


def _calculated(here: Values, there: Values) -> Positions | None:
    """Of progressions and of seeds of one root; None where the values have to be looked up."""
    if isinstance(here, Seeds) and isinstance(there, Seeds) and (here.root, here.bits) == (there.root, there.bits):
        return _positions(here.numbers, there.numbers, 1, 1)
    one, over_one = (here.numerators, here.denominator) if isinstance(here, Ratios) else (here, 1)
    other, over_other = (there.numerators, there.denominator) if isinstance(there, Ratios) else (there, 1)
    if not isinstance(one, range) or not isinstance(other, range):
        return None
    if isinstance(here, Ratios) and not _tell_apart(one, over_one, other, over_other):
        return None
    return _positions(one, other, over_other, over_one)


def _tell_apart(one: range, over_one: int, other: range, over_other: int) -> bool:
    """Whether different fractions of the two are different doubles: they differ by 1 / the denominators at least."""
    ends = [(one[0], over_one), (one[-1], over_one), (other[0], over_other), (other[-1], over_other)]
    largest = max(abs(numerator) / denominator for numerator, denominator in ends)
    return Fraction(math.ulp(largest)) * over_one * over_other < 1


def _positions(here: range, there: range, by_here: int, by_there: int) -> range:
    """The positions of `here` whose numbers times `by_here` are numbers of `there` times `by_there`."""
    scaled, wanted = _times(here, by_here), _times(there, by_there)
    found = _meet(_ascending(scaled), _ascending(wanted))
    if not found:
        return found
    first, last = sorted((scaled.index(found[0]), scaled.index(found[-1])))
    return range(first, last + 1, max((last - first) // max(len(found) - 1, 1), 1))


def _times(numbers: range, factor: int) -> range:
    return range(numbers.start * factor, (numbers[-1] + numbers.step) * factor, numbers.step * factor)


def _ascending(numbers: range) -> range:
    return numbers if numbers.step > 0 else numbers[::-1]


def _meet(one: range, other: range) -> range:
    """The numbers that are in both, which ascend."""
    common = math.gcd(one.step, other.step)
    if not one or not other or (other.start - one.start) % common:
        return range(0)
    step, turns = one.step * other.step // common, other.step // common
    first = one.start + (other.start - one.start) // common * pow(one.step // common, -1, turns) % turns * one.step
    late = max(one.start, other.start) - first
    return range(first + max(-(-late // step), 0) * step, min(one[-1], other[-1]) + 1, step)
