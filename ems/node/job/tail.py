"""The complete records of a text file that something else appends to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ems.node.job.results_file import ResultsError, signature

MAX_RECORD_BYTES = 64 * 2**20
_REMEMBERED_BYTES = 64


@dataclass(frozen=True)
class Lines:
    """Whole records of a text file, and the number of the line at which the first begins."""

    first: int
    records: list[bytes]


class Tail:
    """Reads the complete records of a file that something else appends to."""

    def __init__(self, path: Path, quoted: bool) -> None:
        """`quoted`: a newline between double quotes does not end a record."""
        self.path, self._quoted = path, quoted
        self._offset, self._line = 0, 1
        self._last = b""  # what the file ends with before `_offset`
        self._inode = 0
        self._exhausted: tuple[int, int, int] | None = None

    def take(self, max_rows: int, max_bytes: int, ended: bool) -> Lines:
        """The next complete lines, at least one if there is one; with `ended` also a last one without a newline."""
        before = signature(self.path)
        if before is None:
            return self._absent()
        if before == self._exhausted and not ended:
            return Lines(self._line, [])
        with self.path.open("rb") as file:
            self._refuse_rewritten(file)
            lines = self._read(file, max_rows, max_bytes, ended)
        self._exhausted = None if lines.records else before
        return lines

    def _absent(self) -> Lines:
        if self._offset:
            raise ResultsError(
                f"{self.path} was removed after {self._line - 1} lines of it were stored.",
                "Leave results files in place; write those that you rename later under a name that ends in .tmp.",
            )
        return Lines(1, [])

    def _refuse_rewritten(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        file.seek(max(0, self._offset - _REMEMBERED_BYTES))
        if self._offset and (status.st_ino != self._inode or file.read(len(self._last)) != self._last):
            raise ResultsError(
                f"{self.path} was shortened or rewritten after {self._line - 1} lines of it were stored.",
                "Append to a results file, or write each new state into a file of its own.",
            )
        self._inode = status.st_ino

    def _read(self, file: BinaryIO, max_rows: int, max_bytes: int, ended: bool) -> Lines:
        file.seek(self._offset)
        records: list[bytes] = []
        size = 0
        while len(records) < max_rows and size < max_bytes:
            record = self._record(file, ended)
            if not record:
                break
            records.append(record)
            size += len(record)
        first, data = self._line, b"".join(records)
        self._offset += size
        self._line += data.count(b"\n")
        self._last = (self._last + data)[-_REMEMBERED_BYTES:]
        return Lines(first, records)

    def _record(self, file: BinaryIO, ended: bool) -> bytes:
        """The next record with its newline, or b"" if it is not complete."""
        record = file.readline(MAX_RECORD_BYTES)
        while record.endswith(b"\n") and self._quoted and record.count(b'"') % 2:
            more = file.readline(MAX_RECORD_BYTES)
            if not more:
                break
            record += more
        if len(record) >= MAX_RECORD_BYTES:
            raise ResultsError(f"{self.path}: a record near line {self._line} is longer than {MAX_RECORD_BYTES} bytes.")
        open_quote = self._quoted and record.count(b'"') % 2
        return record if ended or (record.endswith(b"\n") and not open_quote) else b""
