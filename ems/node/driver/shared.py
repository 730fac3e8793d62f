"""Arrays that all workers of a machine have in memory once: a file without a name, which each of them maps.

The driver makes the file in the run's folder, its workers inherit it, and the system frees it with the last of them,
however they end. Its first bytes say what is in it; they are written last, so that what a worker left unfinished that
died does not count. Its lock, `fcntl`'s, ends with the process that holds it.

Standard library alone, Python 3.9 or newer; numpy and pyarrow are looked at only where the code has loaded them.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ems.base.errors import EmsError

EMPTY, SHARED, OWN, FAILED = range(4)  # nothing yet; a value; each worker has to make its own; why nobody can make one
DEEPEST = 20  # containers within one another
ALIGNED = 64  # bytes, as numpy and Arrow like it
_HEADER = struct.Struct("<qqq")  # the state, where the description begins, how many bytes it has
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})


class SharedMemory:
    """The file of this descriptor. Where the driver just made it, it is empty."""

    def __init__(self, descriptor: int) -> None:
        self._file = descriptor

    @contextmanager
    def held(self) -> Iterator[None]:
        """While no other process holds it. In the block nothing may close the file: that would end the lock."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    @property
    def state(self) -> int:
        """EMPTY, SHARED, OWN or FAILED."""
        return self._header()[0]

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self._file).st_size

    def _header(self) -> tuple[int, int, int]:
        state, begin, size = _HEADER.unpack(os.pread(self._file, _HEADER.size, 0).ljust(_HEADER.size, b"\0"))
        return state, begin, size

    def keep(self, value: Any) -> bool:
        """Whether `value` can be shared, and now is. EmsError if the disk is full."""
        if not is_shareable(value):
            self._write(OWN, None)
            return False
        self._write(SHARED, value)
        return True

    def fail(self, why: str) -> None:
        """Have all that ask read `why`."""
        self._write(FAILED, why)

    def _write(self, state: int, value: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        content = _dumped(value, buffers.append)
        try:
            os.ftruncate(self._file, 0)
            with open(self._file, "r+b", closefd=False) as file:
                spans = [_append(file, buffer) for buffer in buffers]
                file.seek(0, io.SEEK_END)
                begin = max(file.tell(), ALIGNED)
                file.seek(begin)
                file.write(pickle.dumps((content, spans)))
                size = file.tell() - begin
        except OSError as error:
            raise EmsError(f"setup returned what the run's folder has no room for: {error}") from error
        os.pwrite(self._file, _HEADER.pack(state, begin, size), 0)

    def read(self) -> Any:
        """The value, or why nobody can make one. Its arrays are views of the file, which cannot be written to."""
        _, begin, size = self._header()
        memory = memoryview(mmap.mmap(self._file, 0, access=mmap.ACCESS_READ))
        content, spans = pickle.loads(memory[begin : begin + size])
        return pickle.loads(content, buffers=[memory[first:last] for first, last in spans])


def _append(file: io.BufferedRandom, buffer: pickle.PickleBuffer) -> tuple[int, int]:
    """Where in the file it now is: its first byte, and the one after its last."""
    end = max(file.seek(0, io.SEEK_END), ALIGNED)
    first = -(-end // ALIGNED) * ALIGNED
    file.seek(first)
    with buffer.raw() as raw:
        file.write(raw)
    return first, file.tell()


def is_shareable(value: Any) -> bool:
    """Whether it is an array of numpy or a table of Arrow, or a dict, list or tuple of them and of plain values."""
    kinds = set(_kinds(value, DEEPEST))
    return "array" in kinds and "other" not in kinds


def _kinds(value: Any, depth: int) -> Iterator[str]:
    """Of its parts: array, plain or other."""
    if type(value) in {dict, list, tuple} and depth:
        for part in value:
            yield from _kinds(part, depth - 1)
        for part in value.values() if isinstance(value, dict) else ():
            yield from _kinds(part, depth - 1)
    else:
        yield "plain" if type(value) in _PLAIN else "array" if _is_array(value) or _is_table(value) else "other"


def _is_array(value: Any) -> bool:
    """Of no subclass, which may have more than its numbers, and of nothing that only this process can reach."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject


def _is_table(value: Any) -> bool:
    arrow = sys.modules.get("pyarrow")
    return arrow is not None and type(value) in {arrow.Table, arrow.RecordBatch}


def _dumped(value: Any, out_of_band: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    written = io.BytesIO()
    _Pickler(written, protocol=5, buffer_callback=lambda buffer: bool(out_of_band(buffer))).dump(value)
    return written.getvalue()


class _Pickler(pickle.Pickler):
    """Takes the numbers of every array out: numpy itself does not where they have gaps, or are times."""

    def reducer_override(self, value: Any) -> Any:
        """As `pickle` documents it."""
        if not _is_array(value):
            return NotImplemented
        whole = value if value.flags.forc else value.copy()
        if whole.dtype.kind in "mM":
            return _viewed, (whole.view("i8"), whole.dtype)
        return whole.__reduce_ex__(5)


def _viewed(numbers: Any, dtype: Any) -> Any:
    return numbers.view(dtype)
