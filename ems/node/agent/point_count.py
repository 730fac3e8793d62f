"""How far a sweep is: which points the database has."""

from __future__ import annotations

from ems.databases import PointState
from ems.spool.batch import Batch


class PointCount:
    """A sweep's points that the database has: done (with rows or with none) and failed. Each counts once.

    `points`: how many the grid has; `left_out`: the bitmap of those that are not computed, if there are any.
    `done`, `failed`: to begin with, of points of which it is not known yet which they are.
    """

    def __init__(self, points: int, done: int = 0, failed: int = 0, left_out: bytes = b"") -> None:
        self.points, self.done, self._more_failed = points, done, failed
        # Bit i % 8 of byte i // 8 is set where point i is done or left out
        self.bits = bytearray(left_out or (points + 7) // 8)
        self._failed: set[int] = set()
        self._due: set[int] = set()  # of those that failed

    @property
    def failed(self) -> int:
        """How many points failed, those that are due again included."""
        return self.given_up + len(self._due)

    @property
    def given_up(self) -> int:
        """How many failed and are not to be computed again."""
        return len(self._failed) - len(self._due) + self._more_failed

    def is_done(self, point: int) -> bool:
        """Whether it is stored, with rows or with none, or left out."""
        return bool(self.bits[point // 8] >> point % 8 & 1)

    def know(self, points: range, state: PointState) -> None:
        """So it is with points of which nothing was known."""
        if state in {"failed", "due"}:
            self._failed.update(points)
            self._due.update(points if state == "due" else ())
        else:
            set_bits(self.bits, points.start, points.stop)
            self.done += len(points)

    def add(self, batch: Batch) -> None:
        """The batch is stored: maybe not for the first time, and its points may have failed before."""
        failed = {mark.point for mark in batch.marks if mark.state == "failed"}
        for point in batch.replaces:
            if point not in failed and not self.is_done(point):
                set_bits(self.bits, point, point + 1)
                self.done += 1
        self._failed.difference_update(batch.replaces)
        self._due.difference_update(batch.replaces)
        self._failed |= failed

    def grow(self, points: int) -> None:
        """There are more points now, of which nothing is known yet."""
        self.bits.extend(bytes((points + 7) // 8 - len(self.bits)))
        self.points = points

    def failed_since(self, first: int) -> int:
        """How many of the points from `first` on failed."""
        return sum(point >= first for point in self._failed)

    def settled(self) -> bytes:
        """As `bits`; those given up are set, too."""
        bits = bytearray(self.bits)
        for point in self._failed - self._due:
            set_bits(bits, point, point + 1)
        return bytes(bits)


def set_bits(bits: bytearray, start: int, stop: int) -> None:
    """Set bit i % 8 of byte i // 8 for each i from start to stop - 1: whole bytes at once."""
    first, last = -(-start // 8), stop // 8
    if first >= last:
        for index in range(start, stop):
            bits[index // 8] |= 1 << index % 8
        return
    set_bits(bits, start, first * 8)
    bits[first:last] = b"\xff" * (last - first)
    set_bits(bits, last * 8, stop)
