"""What a job prints, in its log: all of it up to some megabytes, then what it printed first and what it printed last.

Standard library alone.
"""

from __future__ import annotations

import os
import re
import select
import threading
from contextlib import suppress
from pathlib import Path

HEAD_BYTES = TAIL_BYTES = 8 * 2**20
BLOCK_BYTES = 2**18
DRAINED_S = 0.05
LEFT_OUT = re.compile(rb"\n--- ([0-9,]+) bytes of the log are left out here ---\n")


class BoundedLog:
    """Appends to a file. What is added has `head` bytes of its beginning, and between one and two `tail`s of its end.

    One at a time may write to it in this way; short notes of others are kept, if they are at its end.
    """

    def __init__(self, file: Path, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> None:
        """OSError if it cannot be opened."""
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._head, self._tail = head, tail
        self._head_end = os.fstat(self._file).st_size + head
        self._left_out = 0

    def write(self, data: bytes) -> None:
        """Of a full disk, what it has no room for is left out."""
        with suppress(OSError):
            while data:
                data = data[os.write(self._file, data) :]
            if os.fstat(self._file).st_size > self._head_end + 2 * self._tail:
                self._shorten()

    def end_line(self) -> None:
        """So that what is noted next does not stand on a line that was left unfinished."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self.write(b"\n")

    def _shorten(self) -> None:
        """Take out what is neither head nor tail, both to the ends of lines where these are near."""
        size = os.fstat(self._file).st_size
        begin = size - self._tail
        tail = os.pread(self._file, self._tail, begin)
        begin += tail.find(b"\n", 0, self._tail // 2) + 1
        if not self._left_out:
            half = os.pread(self._file, self._head // 2, self._head_end - self._head // 2)
            self._head_end -= len(half) - half.rfind(b"\n") if b"\n" in half else 0
        self._left_out += begin - self._head_end - len(self._note(self._left_out))
        os.ftruncate(self._file, self._head_end)
        os.write(self._file, self._note(self._left_out) + tail[-(size - begin) :])

    @staticmethod
    def _note(left_out: int) -> bytes:
        return b"\n--- %s bytes of the log are left out here ---\n" % f"{left_out:,}".encode() if left_out else b""


class Pump(threading.Thread):
    """Brings what comes out of a pipe into a log, until all ends of it are closed or `finish` is called."""

    def __init__(self, pipe: int, log: BoundedLog) -> None:
        super().__init__(name="log", daemon=True)
        self._pipe, self._log = pipe, log
        self._finishing = threading.Event()

    def run(self) -> None:
        """As `Thread`."""
        left = 2**20  # that a pipe holds: more is of a process that nobody knows any more
        while left > 0:
            if self._is_ready():
                data = os.read(self._pipe, BLOCK_BYTES)
                if not data:
                    return
                self._log.write(data)
                left -= len(data) if self._finishing.is_set() else 0
            elif self._finishing.is_set():
                return

    def _is_ready(self) -> bool:
        return bool(select.select([self._pipe], [], [], DRAINED_S)[0])

    def finish(self) -> None:
        """Once its writers have ended: bring what is left in the pipe."""
        self._finishing.set()
        self.join()
        self._log.end_line()
