"""A file on its way into a store."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from ems.base.errors import EmsError

BLOCK, BLOCKS = 1 << 20, 4  # which a processor's cache still has when they are hashed


@dataclass(frozen=True)
class Content:
    """What a store knows of a file. `digest`: SHA-256, in hex; `size` in bytes."""

    digest: str
    size: int


class Unreadable(EmsError):
    """The file cannot be read, so that no store can have it."""


class Interrupted(EmsError):
    """Whoever stores the file was told to stop."""


class Source:
    """A regular file, open for reading; no link is followed. Unreadable where there is none, or it may not be read.

    `is_stopped`: is asked before each piece; Interrupted once it says so.
    """

    def __init__(self, path: Path, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self.path, self._is_stopped = path, is_stopped
        with self._reading():
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # never waits for a pipe's writer
        self._before = os.fstat(handle)
        if not stat.S_ISREG(self._before.st_mode):
            os.close(handle)
            raise Unreadable(f"{path} is not a plain file")
        self._file = os.fdopen(handle, "rb", buffering=0)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """In bytes, when it was opened."""
        return self._before.st_size

    def blocks(self) -> Iterator[memoryview]:
        """The whole content, from its beginning; each piece holds until BLOCKS more are asked for.

        Of a file that grows, what it had when it was opened: its end might never come.
        """
        rooms, left = cycle([memoryview(bytearray(min(BLOCK, self.size))) for _ in range(BLOCKS)]), self.size
        with self._reading():
            self._file.seek(0)
        while left and (count := self._into(room := next(rooms)[:left])):
            yield room[:count]
            left -= count

    def _into(self, room: memoryview) -> int:
        with self._reading():
            return self._file.readinto(room)

    def copied(self, write: Callable[[memoryview], Any]) -> Content:
        """Read it once: what was written, whatever the file is meanwhile or afterwards."""
        digest, size = hashlib.sha256(), 0
        with ThreadPoolExecutor(1) as beside:  # which takes as long as to read and to write
            hashed: deque[Future[None]] = deque()
            for block in self.blocks():
                hashed.append(beside.submit(digest.update, block))
                write(block)
                size += len(block)
                if len(hashed) == BLOCKS:
                    hashed.popleft().result()
        return Content(digest.hexdigest(), size)

    def content(self) -> Content:
        """Read it once, to know what it is."""
        return self.copied(_nothing)

    def read(self, size: int) -> bytes:
        """The next bytes after the last read or seek.

        The last ones come only of a file that has not changed since it was opened: else Unreadable, so that nothing is
        completed that is not of one piece.
        """
        found = bytearray()
        with self._reading():
            while len(found) < size and (more := self._file.read(size - len(found))):
                found += more
            if self._file.tell() >= self.size:
                self._check()
        return bytes(found)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()

    def _check(self) -> None:
        now, was = os.fstat(self._file.fileno()), self._before
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (was.st_size, was.st_mtime_ns, was.st_ctime_ns):
            raise Unreadable(f"{self.path} changes while it is stored")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        if self._is_stopped():
            raise Interrupted(f"{self.path} is not stored yet.")
        try:
            yield
        except OSError as error:
            raise Unreadable(f"{self.path} cannot be read: {error.strerror}") from error


def _nothing(_block: memoryview) -> None:
    """For a content that is only looked at."""
