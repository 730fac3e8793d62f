"""Text files of cells as they are imported: with commas or another sign between them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ems.node.job.cells import QUOTED, is_number
from ems.node.job.columns import KnownTypes
from ems.node.job.csv_file import CsvFile
from ems.node.job.records import MAX_RECORD_BYTES, Record

BOM = b"\xef\xbb\xbf"
SIGNS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


class CommaFile(CsvFile):
    """RFC 4180, whose errors say what an import can do about them."""

    hint = (
        "A column keeps the type of its first value; only whole numbers may be followed by other numbers. "
        "Say its type: --type '{name}=text'"
    )

    @property
    def names(self) -> list[str]:
        """The columns of the header."""
        return list(self._names)

    def _refuse_no_header(self, row: list[str], line: int) -> None:
        if numbers := [name for name in row if is_number(name)]:
            hint = "The first line must name the columns: write such a line above the others, numbers in quotes."
            raise self._wrong(line, f"the header has numbers: {', '.join(numbers[:5])}", hint)
        sign = next((sign for sign in ";\t|," if sign in row[0]), "")
        if len(row) == 1 and sign and not row[0].startswith(QUOTED):
            word = next(word for word, meant in SIGNS.items() if meant == sign)
            raise self._wrong(line, f"the header is one column with {sign!r} in its name", f"Say: --delimiter {word}")


class DelimitedFile(CommaFile):
    """The same with another sign than the comma."""

    def __init__(self, path: Path, types: KnownTypes, delimiter: str) -> None:
        super().__init__(path, types)
        self._delimiter = delimiter
        self._quoted_cell = re.compile(rf'(?<![^{re.escape(delimiter)}])"(?:[^"]++|"")*+"?')
        self._tail = _Records(path, delimiter.encode())  # type: ignore[assignment]

    def _split(self, record: Record) -> list[str]:
        text = self._decode(record)
        if '"' not in text:
            plain = text.rstrip("\r\n")
            return plain.split(self._delimiter) if plain else []
        marked = self._quoted_cell.sub(lambda cell: f'"{QUOTED}{cell[0][1:]}', text)
        try:
            return next(csv.reader([marked], strict=True, delimiter=self._delimiter), [])
        except csv.Error as error:
            raise self._wrong(record.line, f"{error}", "Quote cells as RFC 4180 says.") from error


class _Records:
    """The records of a file that does not grow. A line end between quotes does not end a record."""

    def __init__(self, path: Path, delimiter: bytes) -> None:
        self._path = path
        sign = re.escape(delimiter)
        rest = rb'(?:(?:"(?:[^"]++|"")*+"[^%b]*+|[^"%b][^%b]*+)?+(?:%b|\Z))*+\Z' % (sign, sign, sign, sign)
        self._closed = re.compile(rest)
        self._closes = re.compile(rb'(?:[^"]++|"")*+"[^%b]*+(?:%b|\Z)' % (sign, sign) + rest)
        self._rest = self._records()

    def take(self, max_rows: int, max_bytes: int, ended: bool) -> list[Record] | None:  # noqa: ARG002
        """At most so many records, and no more than `max_bytes` but for the last; None if there are no more."""
        taken: list[Record] = []
        size = 0
        for record in islice(self._rest, max_rows):
            taken.append(record)
            size += len(record.data)
            if size >= max_bytes:
                break
        return taken or None

    def verified(self) -> Iterator[None]:
        """Whether the file has changed, its source asks."""
        return iter(())

    def _records(self) -> Iterator[Record]:
        lines: list[bytes] = []
        begin, size, is_open = 1, 0, False
        with self._path.open("rb") as file:
            for number, whole in enumerate(file, 1):
                line = whole.removeprefix(BOM) if number == 1 else whole
                begin = begin if lines else number
                lines.append(line)
                size += len(line)
                if is_open or b'"' in line:
                    is_open = not (self._closes if is_open else self._closed).match(line)
                if is_open and size <= MAX_RECORD_BYTES:
                    continue
                yield Record(begin, b"".join(lines))
                lines, size, is_open = [], 0, False
        if lines:
            yield Record(begin, b"".join(lines))
