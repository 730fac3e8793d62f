"""The values of one axis of a sweep, as a stack file writes them; long ones are computed when they are asked for.

    [100, 200]                       a list of numbers, texts or booleans
    {range: [0.1, 0.5, 0.1]}         from start by steps, in decimals as written: 0.1, 0.2, 0.3, 0.4, 0.5; `stop` is
                                     included where a step lands on it; whole numbers stay whole
    {linspace: [0, 1, 11]}           so many doubles, evenly from start to stop, both included
    {count: 200, root: 7, bits: 31}  independent whole numbers (`ems.sweep.seeds`) from number `first` on; `root` and
                                     `first` are 0 where left out, `bits` is 63
    {ratios: [0, 1, 50000, 3]}       doubles: numerators from the first by a step, so many; over a denominator

A number is of the type in which it is written: 2.0 is a double, and all others of its axis then, too. A whole number
beyond 64 bits is a double: Pulumi writes 1e20 with all its digits.

Standard library alone, Python 3.9 or newer: it is shipped with every sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat
from operator import truediv
from typing import Any, Literal, Union

from ems.sweep.seeds import WIDE_BITS, seed, wide_seed

Scalar = Union[int, float, str, bool]  # noqa: UP007  (evaluated when imported: Python 3.9 knows no `|` here)
ScalarType = Literal["int64", "float64", "text", "bool"]
Values = Sequence[Any]

MOST_SPELLED = 100_000  # values

_TYPES: dict[type, ScalarType] = {bool: "bool", str: "text", float: "float64", int: "int64"}


@dataclass(frozen=True)
class Progression:
    """`count` numbers, of which number i is (first + step * i) / denominator; `whole`: as int64, else as doubles."""

    first: int
    step: int
    count: int
    denominator: int
    whole: bool

    @classmethod
    def stepped(cls, start: float, stop: float, step: float) -> Progression:
        """From `start` by `step` (not 0) up to `stop`; the count is below 1 if `step` leads away from it.

        Whole numbers only of a start and a step that are: `stop` has no say, and 1.0 is a double.
        """
        scale, (first, end, by) = _scaled(start, stop, step)
        count = (end - first) // by + 1
        exact = type(start) is int and type(step) is int
        whole = exact and _in_64_bits(first // scale, (first + by * (count - 1)) // scale)
        return cls(first // scale, by // scale, count, 1, True) if whole else cls(first, by, count, scale, False)

    @classmethod
    def even(cls, start: float, stop: float, count: int) -> Progression:
        """`count` doubles, 2 or more, from `start` to another `stop`."""
        scale, (first, end) = _scaled(start, stop)
        return cls(first * (count - 1), end - first, count, scale * (count - 1), False)

    @property
    def last(self) -> int:
        """The numerator of the last number."""
        return self.first + self.step * (self.count - 1)

    @property
    def values(self) -> Values:
        """Its numbers, as whole numbers or as doubles, computed when they are asked for."""
        numerators = range(self.first, self.last + self.step, self.step)
        return numerators if self.whole else Ratios(numerators, self.denominator)

    @property
    def distinct(self) -> bool:
        """Whether no two of its numbers are the same double."""
        largest = max(abs(self.first), abs(self.last)) / self.denominator
        return self.whole or abs(self.step) > Fraction(math.ulp(largest)) * self.denominator


class Ratios(Sequence[float]):
    """Doubles, each the one nearest to numerator / denominator."""

    def __init__(self, numerators: range, denominator: int) -> None:
        common = math.gcd(numerators.start, numerators.step, denominator)
        start, step = numerators.start // common, numerators.step // common
        self.numerators = range(start, start + step * len(numerators), step)
        self.denominator = denominator // common

    def __len__(self) -> int:
        return len(self.numerators)

    def __iter__(self) -> Iterator[float]:
        return map(truediv, self.numerators, repeat(self.denominator))

    def __getitem__(self, key: Any) -> Any:
        found = self.numerators[key]
        return Ratios(found, self.denominator) if isinstance(found, range) else found / self.denominator


class Seeds(Sequence[int]):
    """The seeds of `root` with these numbers, of so many bits: 31 or 63."""

    def __init__(self, root: int, numbers: range, bits: int) -> None:
        self.root, self.numbers, self.bits = root, numbers, bits
        self._seed = wide_seed if bits == WIDE_BITS else seed

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[int]:
        return map(self._seed, repeat(self.root), self.numbers)

    def __getitem__(self, key: Any) -> Any:
        found = self.numbers[key]
        return Seeds(self.root, found, self.bits) if isinstance(found, range) else self._seed(self.root, found)


def progression(form: Mapping[str, Any]) -> Progression:
    """The numbers of a `range` or a `linspace`."""
    return Progression.stepped(*form["range"]) if "range" in form else Progression.even(*form["linspace"])


def values_of(form: Any) -> Values:
    """The values of a valid axis: a tuple as written, or a sequence that computes them when they are asked for."""
    if not isinstance(form, Mapping):
        return tuple(form)
    if "ratios" in form:
        first, step, count, denominator = form["ratios"]
        return Ratios(range(first, first + step * count, step), denominator)
    if "count" not in form:
        return progression(form).values
    first = form.get("first", 0)
    return Seeds(form.get("root", 0), range(first, first + form["count"]), form.get("bits", WIDE_BITS))


def type_of(values: Values) -> ScalarType:
    """The type of an axis's values: of numbers float64 if one is not whole, or beyond 64 bits.

    ValueError for types that do not go together.
    """
    if isinstance(values, tuple):
        return joined(map(_type, values))
    return "float64" if isinstance(values, Ratios) else "int64"


def joined(types: Iterable[ScalarType]) -> ScalarType:
    """One type for all: numbers of both types are doubles. ValueError for types that do not go together."""
    found = set(types)
    if found == {"int64", "float64"}:
        return "float64"
    (only,) = found
    return only


def typed(values: Values, wanted: ScalarType) -> Values:
    """The values as numbers of the type `wanted`, which is theirs or a wider one."""
    if wanted != "float64" or isinstance(values, Ratios):
        return values
    return Ratios(values, 1) if isinstance(values, range) else tuple(map(float, values))


def spelled(values: Values) -> Any:
    """JSON that is equal for equal values, however they were written.

    All are spelled out, but for seeds, and numbers of which there are more than MOST_SPELLED: they stand as formulas.
    """
    if isinstance(values, Seeds):
        return {"count": len(values), "root": values.root, **_unlike_the_first(values)}
    if isinstance(values, tuple) or len(values) <= MOST_SPELLED:
        return list(values)
    numerators, denominator = (values.numerators, [values.denominator]) if isinstance(values, Ratios) else (values, [])
    return {"first": numerators[0], "last": numerators[-1], "count": len(values), "over": denominator}


def _unlike_the_first(seeds: Seeds) -> dict[str, int]:
    """What tells seeds from those that there were first: of 63 bits, from number 0 on."""
    bits = {} if seeds.bits == WIDE_BITS else {"bits": seeds.bits}
    return {**bits, "first": seeds.numbers.start} if seeds.numbers.start else bits


def _type(value: Scalar) -> ScalarType:
    is_large = type(value) is int and not _in_64_bits(value)
    return "float64" if is_large else _TYPES[type(value)]


def _in_64_bits(*numbers: int) -> bool:
    return all(-(2**63) <= number < 2**63 for number in numbers)


def _scaled(*numbers: float) -> tuple[int, list[int]]:
    """The least scale that makes whole numbers of all, taken as the decimals that people write; and those."""
    exact = [Fraction(repr(number)) for number in numbers]
    scale = math.lcm(*(number.denominator for number in exact))
    return scale, [int(number * scale) for number in exact]
