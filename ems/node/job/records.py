"""Records of a text file that comes block by block. Each byte is looked at once, however long a record stays open."""

from __future__ import annotations

import re
from collections import deque
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

from ems.node.job.results_file import ResultsError

MAX_RECORD_BYTES = 64 * 2**20
_BOM = b"\xef\xbb\xbf"


@cache
def _closing(delimiter: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Of lines that close all quotes that they open; and of those that do so after one is open."""
    sign = re.escape(delimiter).encode()
    # A quote opens a cell only as its first letter
    rest = rb'(?:(?:"(?:[^"]++|"")*+"[^,]*+|[^",][^,]*+)?+(?:,|\Z))*+\Z'.replace(b",", sign)
    return re.compile(rest), re.compile(rb'(?:[^"]++|"")*+"[^,]*+(?:,|\Z)'.replace(b",", sign) + rest)


class Record(NamedTuple):
    """A record with its line end, and the number of the line at which it begins."""

    line: int
    data: bytes


class Records:
    """What `feed` got, as records. With `quoted` they are those of `csv.reader`; otherwise each is a line.

    In CSV a line end between quotes does not end a record, and CR is one as well as LF and CR LF.
    """

    def __init__(self, path: Path, quoted: bool, delimiter: str = ",") -> None:
        self._path, self._quoted = path, quoted
        self._closed, self._closes = _closing(delimiter)
        self._ends: tuple[bytes, ...] = (b"\n", b"\r") if quoted else (b"\n",)
        self.ready: deque[Record] = deque()
        self._line = 1  # at which the next record begins
        self._held = b""  # a CR that LF may follow
        self._pieces: list[bytes] = []  # of a line that is not complete
        self._lines: list[bytes] = []  # of a record that is not complete
        self._size = 0  # of both
        self._open = False  # whether `_lines` end between quotes

    @property
    def complete_lines(self) -> int:
        """How many lines have made records."""
        return self._line - 1

    def feed(self, block: bytes) -> None:
        """The next bytes. ResultsError if a record becomes longer than MAX_RECORD_BYTES."""
        block = self._held + block
        self._held = b"\r" if self._quoted and block.endswith(b"\r") else b""
        lines = _lines(block.removesuffix(self._held), self._quoted)
        if not self._size and (not self._quoted or b'"' not in block) and self._line > 1:
            lines = self._plain(lines)
        for piece in lines:
            self._pieces.append(piece)
            self._size += len(piece)
            if piece.endswith(self._ends):
                self._end_line()
        if self._size > MAX_RECORD_BYTES:
            problem = f"the record that begins at line {self._line} is longer than {MAX_RECORD_BYTES:,} bytes"
            hint = 'A quote that opens a cell may not be closed: write a quote within a quoted cell twice, as "".'
            raise ResultsError(f"{self._path}:{self._line}: {problem}.", hint if self._quoted else "")

    def _plain(self, lines: list[bytes]) -> list[bytes]:
        """All at once, where each line is a record; what is left of a line that is not complete."""
        rest = [] if not lines or lines[-1].endswith(self._ends) else [lines.pop()]
        self.ready.extend(map(Record, count(self._line), lines))
        self._line += len(lines)
        return rest

    def finish(self) -> None:
        """No more bytes come: the last record needs no line end."""
        if self._held or self._pieces:
            self._pieces.append(self._held)
            self._held = b""
            self._end_line()
        if self._lines:
            self._end_record()

    def _end_line(self) -> None:
        line = b"".join(self._pieces)
        self._pieces.clear()
        if self._line == 1 and not self._lines:
            line = line.removeprefix(_BOM)
        self._lines.append(line)
        if self._quoted and (self._open or b'"' in line):
            self._open = not (self._closes if self._open else self._closed).match(line)
        if not self._open:
            self._end_record()

    def _end_record(self) -> None:
        self.ready.append(Record(self._line, b"".join(self._lines)))
        self._line += len(self._lines)
        self._lines.clear()
        self._size, self._open = 0, False


def _lines(block: bytes, quoted: bool) -> list[bytes]:
    """With their line ends; the last may have none."""
    if quoted:
        return block.splitlines(keepends=True)
    *lines, rest = block.split(b"\n")
    return [*(line + b"\n" for line in lines), *([rest] if rest else [])]
