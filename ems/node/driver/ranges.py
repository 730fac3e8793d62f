"""Which points of a sweep are still to be computed, and how many of them make a batch."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from ems.sweep.order import RandomOrder

Range = tuple[int, int]  # the first point and the one after the last

TARGET_S, LEAST_S = 0.5, 0.05
BATCH_BYTES = 8 * 10**6
BATCH_POINTS = 50_000
_CHUNK = 1 << 16
_NOT_FULL, _NOT_EMPTY = re.compile(rb"[^\xff]"), re.compile(rb"[^\0]")
_OPEN_BITS = [[bit for bit in range(8) if not byte >> bit & 1] for byte in range(256)]


def open_ranges(done: bytes, total: int) -> Iterator[Range]:
    """The points below `total` whose bit (bit i % 8 of byte i // 8) is not set, as ranges in ascending order."""
    padded = done + bytes(max(0, (total + 7) // 8 - len(done)))
    for first, last in _adjoining(_runs(padded)):
        if first < total:
            yield first, min(last, total)


def _adjoining(runs: Iterable[Range]) -> Iterator[Range]:
    """Runs that touch as one."""
    first = last = 0
    for begin, end in runs:
        if begin > last:
            if first < last:
                yield first, last
            first = begin
        last = end
    if first < last:
        yield first, last


def _runs(done: bytes) -> Iterator[Range]:
    """Open points, byte by byte: long stretches that are all done, or not begun, are passed at once."""
    position = 0
    while True:
        found = _NOT_FULL.search(done, position)
        if not found:
            return
        position = found.start()
        if done[position]:
            yield from ((8 * position + bit, 8 * position + bit + 1) for bit in _OPEN_BITS[done[position]])
            position += 1
        else:
            begun = _NOT_EMPTY.search(done, position)
            end = begun.start() if begun else len(done)
            yield 8 * position, 8 * end
            position = end


def open_in_order(done: bytes, order: RandomOrder) -> Iterator[Range]:
    """The same points in a random order."""
    padded = done + bytes(max(0, (order.total + 7) // 8 - len(done)))
    for first, last in order.blocks():
        if first % 8 == last % 8 == 0 and not any(padded[first // 8 : last // 8]):
            yield first, last
        else:
            yield from _adjoining((i, i + 1) for i in range(first, last) if not padded[i // 8] >> i % 8 & 1)


def count_open(done: bytes, total: int) -> int:
    """How many points below `total` have a bit that is not set, as in `open_ranges`."""
    whole = done[: total // 8]
    ones = sum(bin(int.from_bytes(whole[i : i + _CHUNK], "big")).count("1") for i in range(0, len(whole), _CHUNK))
    rest = done[total // 8] & ((1 << total % 8) - 1) if len(done) > total // 8 else 0
    return total - ones - bin(rest).count("1")


def size(ranges: Iterable[Range]) -> int:
    """How many points the ranges have."""
    return sum(last - first for first, last in ranges)


def cut(ranges: Sequence[Range], count: int) -> tuple[list[Range], list[Range]]:
    """The first `count` points, and the others."""
    head: list[Range] = []
    for i, (first, last) in enumerate(ranges):
        if count < last - first:
            return head + ([(first, first + count)] if count else []), [(first + count, last), *ranges[i + 1 :]]
        head.append((first, last))
        count -= last - first
    return head, []


def without(ranges: Sequence[Range], point: int) -> list[Range]:
    """All points but that one."""
    halves = [((first, min(last, point)), (max(first, point + 1), last)) for first, last in ranges]
    return [(first, last) for pair in halves for first, last in pair if first < last]


def split(ranges: Sequence[Range], parts: int) -> Iterator[list[Range]]:
    """In `parts` of about equal size, or in single points where there are fewer."""
    rest, left = list(ranges), size(ranges)
    for part in range(min(parts, left), 0, -1):
        head, rest = cut(rest, -(-left // part))
        left -= size(head)
        yield head


class Backlog:
    """The points nobody computes now, in ascending order, or in the random one that follows from `key` if there is one.

    `left`: how many.
    """

    def __init__(self, done: bytes, total: int, key: str = "") -> None:
        self._fresh = open_in_order(done, RandomOrder(key, total)) if key else open_ranges(done, total)
        self._returned: deque[Range] = deque()
        self.left = count_open(done, total)

    def take(self, count: int) -> list[Range]:
        """Up to `count` points, those that were given back first; [] if none is left."""
        taken: list[Range] = []
        while count and self.left:
            first, last = self._returned.popleft() if self._returned else next(self._fresh)
            middle = min(last, first + count)
            if middle < last:
                self._returned.appendleft((middle, last))
            taken.append((first, middle))
            count -= middle - first
            self.left -= middle - first
        return taken

    def add(self, ranges: Sequence[Range]) -> None:
        """More points, after those that are there."""
        self._returned.extend(ranges)
        self.left += size(ranges)

    def give_back(self, ranges: Sequence[Range]) -> None:
        """Have these points computed next: whoever took them did not."""
        self._returned.extendleft(reversed(ranges))
        self.left += size(ranges)


class BatchSize:
    """How many points make a batch: about TARGET_S of work, by what the last ones cost; a single one at first."""

    def __init__(self) -> None:
        self._point_s = self._point_bytes = 0.0

    def learn(self, points: int, seconds: float, size_bytes: int) -> None:
        """Note what a batch of so many points cost: seconds of a worker, bytes of its encoded rows."""
        if points:
            self._point_s = (self._point_s + seconds / points) / 2 if self._point_s else seconds / points
            self._point_bytes = max(self._point_bytes / 2, size_bytes / points)

    @property
    def needed_s(self) -> float:
        """In which a batch is computed, most likely: a worker that ends sooner is not given one."""
        return 2 * max(TARGET_S, self._point_s)

    def points(self, left: int, workers: int) -> int:
        """Fewer towards the end, so that all workers end together."""
        if not self._point_s:
            return 1
        fair = max(left / (2 * workers), LEAST_S / self._point_s)
        return max(1, int(min(fair, TARGET_S / self._point_s, BATCH_BYTES / self._point_bytes, BATCH_POINTS)))
