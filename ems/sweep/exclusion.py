"""Points of a sweep that are left out: those with given values, `{n: 100, seed: 3}`, or that fulfil a condition.

What is left out is a bitmap, bit i % 8 of byte i // 8 for point i: a hundred million points take 12.5 MB. A condition
is asked once for each combination of the parameters that it names, however many points have it.

A point that lacks one of the parameters is not left out. Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, reduce
from itertools import islice, repeat
from math import prod
from operator import or_
from typing import Any, Union

from ems.sweep import Axis, Grid, Sweep
from ems.sweep.axes import Scalar
from ems.sweep.conditions import Condition, parse

Item = Union[str, Mapping[str, Scalar]]  # noqa: UP007  (evaluated when imported: Python 3.9 knows no `|` here)
Group = tuple[Axis, ...]  # axes that move together
Bits = int  # bit i is point i

_CHUNK = 1 << 16


def of_job(job: Mapping[str, Any]) -> bytes:
    """The bitmap of what the job of a spec leaves out; b"" where it leaves out nothing."""
    return reduce(_either, each_of_job(job), b"")


def each_of_job(job: Mapping[str, Any]) -> Iterator[bytes]:
    """The same for each item of its `exclude`."""
    sweep = json.dumps(job["sweep"]) if job.get("exclude") else ""
    return (_of_json(sweep, json.dumps(item)) for item in job.get("exclude", ()))


@lru_cache(maxsize=4)  # several ask for it, one after another
def _of_json(sweep: str, item: str) -> bytes:
    return bitmap(Sweep.of(json.loads(sweep)), json.loads(item))


def _either(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "little") | int.from_bytes(other, "little")).to_bytes(len(other), "little")


def bitmap(sweep: Sweep, item: Item) -> bytes:
    """The points that an item leaves out. ValueError if a condition has no value for some point."""
    return _points(sweep, item).to_bytes((len(sweep) + 7) // 8, "little")


def count(bits: bytes) -> int:
    """How many bits are set."""
    chunks = (bits[at : at + _CHUNK] for at in range(0, len(bits), _CHUNK))
    return sum(bin(int.from_bytes(chunk, "little")).count("1") for chunk in chunks)


def identity(sweep: Sweep, exclude: Iterable[Item]) -> list[Any]:
    """JSON that is equal for what says the same: in any order, and however a condition is spaced."""
    trees = [parse(item, sweep.types).tree if isinstance(item, str) else dict(item) for item in exclude]
    texts = {json.dumps(tree, sort_keys=True) for tree in trees}
    return [json.loads(text) for text in sorted(texts)]


def _points(sweep: Sweep, item: Item) -> Bits:
    condition = parse(item, sweep.types) if isinstance(item, str) else None
    found = 0
    for grid, start in zip(sweep.grids, sweep.starts):  # noqa: B905
        groups = _groups(grid)
        names = {axis.name for axis in grid.axes}
        if condition:
            bits = _fulfilling(groups, condition, {}) if names.issuperset(condition.names) else 0
        else:
            assert isinstance(item, Mapping)
            bits = _having(groups, item) if names.issuperset(item) else 0
        found |= bits << start
    return found


def _groups(grid: Grid) -> list[Group]:
    """The slowest first."""
    groups: dict[tuple[int, int], list[Axis]] = {}
    for axis in grid.axes:
        groups.setdefault((axis.stride, len(axis.values)), []).append(axis)
    return [tuple(groups[key]) for key in sorted(groups, reverse=True)]


def _length(group: Group) -> int:
    return len(group[0].values)


def _width(groups: Sequence[Group]) -> int:
    """How many points there are of the combinations of these groups."""
    return prod(map(_length, groups))


def _having(groups: Sequence[Group], values: Mapping[str, Scalar]) -> Bits:
    """The points with these values."""
    if not groups:
        return 1
    group, *rest = groups
    below, width = _having(rest, values), _width(rest)
    wanted = [(axis.values, values[axis.name]) for axis in group if axis.name in values]
    if not wanted:
        return _repeated(below, width, _length(group))
    first, value = wanted[0]
    if len(wanted) == 1 and isinstance(first, range):
        return below << first.index(int(value)) * width if value in first else 0
    rows = zip(*(axis for axis, _ in wanted))  # noqa: B905
    row = tuple(value for _, value in wanted)
    return _joined((below if each == row else 0 for each in rows), width)


def _fulfilling(groups: Sequence[Group], condition: Condition, known: Mapping[str, Scalar]) -> Bits:
    """The points that fulfil a condition, of which some parameters are known."""
    group, *rest = groups
    here = [axis for axis in group if axis.name in condition.names]
    width = _width(rest)
    if not here:
        return _repeated(_fulfilling(rest, condition, known), width, _length(group))
    if len(known) + len(here) == len(condition.names):
        return _joined(_held(condition, here, known, _length(group), width), width)
    chosen = (dict(zip((axis.name for axis in here), row)) for row in zip(*(axis.values for axis in here)))  # noqa: B905
    return _joined((_fulfilling(rest, condition, {**known, **row}) for row in chosen), width)


def _held(
    condition: Condition, axes: Sequence[Axis], known: Mapping[str, Scalar], length: int, width: int
) -> Iterator[Bits]:
    """For each position of axes, the last that a condition names: all points, or none."""
    every = (1 << width) - 1
    values = {axis.name: axis.values for axis in axes}
    columns = [values[name] if name in values else repeat(known[name], length) for name in condition.names]
    try:
        for holds in map(condition.holds, *columns):
            yield every if holds else 0
    except ArithmeticError as error:
        raise ValueError(f'has no value for some point ({error}): allowed is, as "n != 0 and m / n > 2"') from error


def _repeated(bits: Bits, width: int, times: int) -> Bits:
    return _joined(repeat(bits, times), width) if bits else 0


def _joined(parts: Iterable[Bits], width: int) -> Bits:
    """Parts of so many bits each, one after another: eight of them are whole bytes."""
    joined, parts = bytearray(), iter(parts)
    if width == 1:
        while some := "".join(map("01".__getitem__, islice(parts, _CHUNK))):
            joined += int(some[::-1], 2).to_bytes((len(some) + 7) // 8, "little")
    else:
        while eight := list(islice(parts, 8)):
            bits = reduce(or_, (part << width * at for at, part in enumerate(eight)), 0)
            joined += bits.to_bytes((width * len(eight) + 7) // 8, "little")
    return int.from_bytes(joined, "little")
