"""A file on its way into a store."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ems.base.errors import EmsError

BLOCK = 1 << 20  # which a processor's cache still has when it is hashed
PIECE = 16 << 20  # that the system copies between two looks at whether to stop


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

    def copied(self, to: int) -> Content:
        """Have the new file that is open as `to`, for reading too, hold what this one had when it was opened.

        What was written is what is hashed, beside the copying, whatever the file is meanwhile or afterwards.
        OSError of the copy, as of a full disk.
        """
        digest, size, hashed = hashlib.sha256(), 0, []
        with ThreadPoolExecutor(1) as beside:  # which takes as long as to copy and to flush
            while size < self.size and (count := self._copy(to, size)):
                hashed.append(beside.submit(self._hash, digest, to, size, size + count))
                size += count
            os.fsync(to)
            for each in hashed:
                each.result()
        return Content(digest.hexdigest(), size)

    def _copy(self, to: int, start: int) -> int:
        """Some bytes from `start` on, by the system where it can do that; returns how many, 0 at the file's end."""
        with self._reading(), suppress(OSError, AttributeError):  # by hand it is seen which of the files it is
            if count := os.copy_file_range(self._file.fileno(), to, min(PIECE, self.size - start), start, start):
                return count
        with self._reading():
            block = os.pread(self._file.fileno(), min(BLOCK, self.size - start), start)
        return os.pwrite(to, block, start)

    def content(self) -> Content:
        """Read it once, to know what it is: of a file that grows, what it had when it was opened."""
        digest = hashlib.sha256()
        with self._reading():
            size = self._hash(digest, self._file.fileno(), 0, self.size)
        return Content(digest.hexdigest(), size)

    def _hash(self, digest: hashlib._Hash, handle: int, start: int, end: int) -> int:
        """Add what a file has there; returns where it ends, which may be before."""
        while start < end and (block := os.pread(handle, min(BLOCK, end - start), start)):
            digest.update(block)
            start += len(block)
            self._go_on()
        return start

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
        self._go_on()
        try:
            yield
        except OSError as error:
            raise Unreadable(f"{self.path} cannot be read: {error.strerror}") from error

    def _go_on(self) -> None:
        if self._is_stopped():
            raise Interrupted(f"{self.path} is not stored yet.")
