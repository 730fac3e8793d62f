"""Which point a worker process is at, in memory that it shares with the driver: known also when it dies or hangs.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import mmap
import struct

LOADING, IDLE, GATHERING = -1, -2, -3  # importing the code; without work; making a batch of what its points returned
SETTING_UP = -4  # in the function that `setup` names
_FORMAT = struct.Struct("qq")
SIZE = _FORMAT.size


class Position:
    """The point at work, or one of LOADING, IDLE, GATHERING and SETTING_UP, and how often it was set."""

    def __init__(self, file: int) -> None:
        """`file`: a descriptor of a file of SIZE bytes, the same in both processes."""
        self._memory = mmap.mmap(file, SIZE)
        self._changes = 0

    def set(self, point: int) -> None:
        """To be called by one of the two processes at a time."""
        self._changes += 1
        _FORMAT.pack_into(self._memory, 0, point, self._changes)

    def get(self) -> tuple[int, int]:
        """The point and the count; of a moment in which both change, maybe one of them new."""
        point, changes = _FORMAT.unpack_from(self._memory)
        return point, changes
