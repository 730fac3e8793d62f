"""A pseudo-random order of a sweep's points that is computed, not kept: a hundred million points take no more memory.

The points are in blocks of neighbours, and the blocks come in the order of a permutation that follows from a key, such
as the id of the experiment. Small sweeps have blocks of one point. Blocks of up to 64 points keep cheap points cheap:
neighbours are computed together, and their rows stand together in the database.

Standard library alone, Python 3.9 or newer: it is shipped with every sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from ems.sweep.seeds import mixed

Range = tuple[int, int]  # the first point and the one after the last

LEAST_BLOCKS, MOST_POINTS = 4096, 64
_ROUNDS = 4
_ODD = 37  # so that the points of a block are taken in an order that hardly shows


class Permutation:
    """The numbers below `count` in a pseudo-random order: item i is computed from i, and each number comes once."""

    def __init__(self, key: str, count: int) -> None:
        bits = max(count - 1, 1).bit_length()
        words = sha256(key.encode()).digest()
        keys = [int.from_bytes(words[i : i + 4], "big") for i in range(0, 8 * _ROUNDS, 4)]
        self._count, self._mask, self._shift = count, (1 << bits) - 1, (bits + 1) // 2
        self._rounds = [(add, factor | 1) for add, factor in zip(keys[::2], keys[1::2])]  # noqa: B905

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return map(self.__getitem__, range(self._count))

    def __getitem__(self, index: int) -> int:
        """IndexError outside 0 to len - 1."""
        if not 0 <= index < self._count:
            raise IndexError(f"{index} of a permutation of {self._count:,} numbers, counted from 0")
        number = self._mixed(index)
        while number >= self._count:  # of the next power of two: it leads back below `count`, to a number of its own
            number = self._mixed(number)
        return number

    def _mixed(self, number: int) -> int:
        """Each step can be undone, so no two numbers become one."""
        for add, factor in self._rounds:
            number = (number ^ add) * factor & self._mask
            number ^= number >> self._shift
        return number


class RandomOrder:
    """The points below `total` in an order that follows from `key`. `block`: how many neighbours stay together."""

    def __init__(self, key: str, total: int) -> None:
        self.total = total
        self.block = min(1 << max(total // LEAST_BLOCKS, 1).bit_length() - 1, MOST_POINTS)
        self._order = Permutation(key, -(-total // self.block))

    def blocks(self) -> Iterator[Range]:
        """All points, as ranges of neighbours."""
        for block in self._order:
            first = block * self.block
            yield first, min(first + self.block, self.total)

    def points(self) -> Iterator[int]:
        """All points one by one: first one of each block, then another one of each, so that few are spread widely."""
        for turn in range(self.block):
            for block in self._order:
                point = block * self.block + (turn * _ODD + mixed(block)) % self.block
                if point < self.total:
                    yield point
