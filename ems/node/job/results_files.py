"""The files that a command writes its results to, each read while it grows: CSV, JSON-lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ems.errors import EmsError
from ems.node.job.columns import KnownTypes, Misfit
from ems.spool.batch import Column

MAX_RECORD_BYTES = 64 * 2**20
_BOM = b"\xef\xbb\xbf"
_REMEMBERED_BYTES = 64
csv.field_size_limit(MAX_RECORD_BYTES)  # Python's own limit of 131,072 characters is a guard against broken quotes


class ResultsError(EmsError):
    """A results file that cannot be read: names file, line, column and value as far as there are such."""


@dataclass(frozen=True)
class Chunk:
    """Rows of one file; a column without any value so far is left out."""

    rows: int
    size: int  # bytes in the file
    columns: list[Column]


class ResultsFile(ABC):
    """One results file, read while it grows. `types`: the column types that all files of a run share."""

    def __init__(self, path: Path, types: KnownTypes) -> None:
        self.path, self._types = path, types

    @abstractmethod
    def take(self, max_rows: int, max_bytes: int, ended: bool) -> Chunk | None:
        """The next complete rows, at least one if there is one; None if there is nothing new.

        `ended`: the job has ended well, so that a last line without a newline is complete. ResultsError on anything
        that cannot be read.
        """


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
        """The next complete records, `max_rows` at most and of about `max_bytes`; none if nothing is new.

        `ended` as in `ResultsFile.take`. ResultsError if the file was removed or rewritten, or a record is too long.
        """
        before = _signature(self.path)
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


class LineFile(ResultsFile):
    """A text file with one record a line."""

    quoted = False

    def __init__(self, path: Path, types: KnownTypes) -> None:
        super().__init__(path, types)
        self._tail = Tail(path, self.quoted)

    def take(self, max_rows: int, max_bytes: int, ended: bool) -> Chunk | None:
        lines = self._tail.take(max_rows, max_bytes, ended)
        if not lines.records:
            return None
        size = sum(map(len, lines.records))
        if lines.first == 1:
            lines = Lines(1, [lines.records[0].removeprefix(_BOM), *lines.records[1:]])
        numbers, columns = self._parse(lines)
        return Chunk(len(numbers), size, columns)

    @abstractmethod
    def _parse(self, lines: Lines) -> tuple[list[int], list[Column]]:
        """Each row's line number, and the columns."""

    def _decode(self, data: bytes, line: int) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            line += data.count(b"\n", 0, error.start)
            bad = data[error.start : error.end]
            raise self._wrong(line, f"{bad!r} is not UTF-8", "Write results files in UTF-8.") from error

    def _wrong(self, line: int, problem: str, hint: str = "") -> ResultsError:
        return ResultsError(f"{self.path}:{line}: {problem}.", hint)

    def _misfit(self, line: int, misfit: Misfit) -> ResultsError:
        hint = "A column keeps the type of its first values; only integers may be followed by other numbers."
        return self._wrong(line, str(misfit), hint)


class CsvFile(LineFile):
    """RFC 4180 with a header line. Empty cells are null; `NA` is, except in a column of text."""

    quoted = True

    def __init__(self, path: Path, types: KnownTypes) -> None:
        super().__init__(path, types)
        self._names: list[str] = []

    def _parse(self, lines: Lines) -> tuple[list[int], list[Column]]:
        rows, numbers = self._rows(self._decode(b"".join(lines.records), lines.first), lines.first)
        columns = []
        for name, cells in zip(self._names, zip(*rows, strict=True), strict=False):
            try:
                column = self._types.from_cells(name, cells)
            except Misfit as misfit:
                raise self._misfit(numbers[misfit.row], misfit) from misfit
            columns += [column] if column else []
        return numbers, columns

    def _rows(self, text: str, first: int) -> tuple[list[list[str]], list[int]]:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows, numbers, line = [], [], first
        try:
            for row in reader:
                if not self._names:
                    self._names = self._header(row, line)
                elif len(row) == len(self._names):
                    rows.append(row)
                    numbers.append(line)
                elif row:
                    raise self._wrong(line, f"{len(row)} fields, where the header has {len(self._names)}")
                line = first + reader.line_num
        except csv.Error as error:
            raise self._wrong(line, f"{error}", "Quote cells as RFC 4180 says.") from error
        return rows, numbers

    def _header(self, row: list[str], line: int) -> list[str]:
        if row and "" in row:
            hint = "In R: write.csv(…, row.names = FALSE). With pandas: to_csv(…, index=False)."
            raise self._wrong(line, f"column {row.index('') + 1} of the header has no name", hint)
        twice = [name for i, name in enumerate(row) if name in row[:i]] if len(set(row)) < len(row) else []
        if twice:
            raise self._wrong(line, f"the header names {twice[0]!r} twice")
        return row


class JsonLinesFile(LineFile):
    """One JSON object a line, of numbers, text, booleans and nulls; NaN and Infinity are accepted."""

    def _parse(self, lines: Lines) -> tuple[list[int], list[Column]]:
        rows, numbers = [], []
        for line, record in enumerate(lines.records, lines.first):
            if record.strip():
                rows.append(self._object(record, line))
                numbers.append(line)
        columns = []
        for name in {name: None for row in rows for name in row}:
            try:
                column = self._types.from_values(name, [row.get(name) for row in rows])
            except Misfit as misfit:
                raise self._misfit(numbers[misfit.row], misfit) from misfit
            columns += [column] if column else []
        return numbers, columns

    def _object(self, record: bytes, line: int) -> dict[str, Any]:
        text = self._decode(record, line)
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._wrong(line, f"not a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise self._wrong(line, f"a JSON {type(row).__name__}, not an object", 'Write {"name": value, …}.')
        for name, value in row.items():
            if isinstance(value, (dict, list)) or not name:
                hint = "Values are numbers, text, booleans or null: give each element a column of its own."
                raise self._wrong(line, f"{name!r} is a nested value" if name else "a name is empty", hint)
        return row


class ParquetFile(ResultsFile):
    """A Parquet file, read once it is closed: it then ends with its footer."""

    def __init__(self, path: Path, types: KnownTypes) -> None:
        super().__init__(path, types)
        self._batches: Iterator[Any] | None = None
        self._read_as: tuple[int, int, int] | None = None
        self._bytes_per_row = 1

    def take(self, max_rows: int, max_bytes: int, ended: bool) -> Chunk | None:
        if self._read_as and self._read_as != _signature(self.path):
            raise ResultsError(f"{self.path} was rewritten or removed after it was read.", "Write another file.")
        if not self._batches and not self._open(max_rows, max_bytes, ended):
            return None
        batch = next(self._batches or iter(()), None)
        return self._chunk(batch) if batch is not None else None

    def _open(self, max_rows: int, max_bytes: int, ended: bool) -> bool:
        if not _is_closed_parquet(self.path):
            if ended and self.path.exists():
                raise ResultsError(f"{self.path} has no Parquet footer.", "Close the file before the job ends.")
            return False
        import pyarrow.parquet

        self._read_as = _signature(self.path)
        try:
            file = pyarrow.parquet.ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise ResultsError(f"{self.path} cannot be read as Parquet: {error}") from error
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        self._bytes_per_row = 1 + sum(g.total_byte_size for g in groups) // max(1, file.metadata.num_rows)
        self._batches = file.iter_batches(max(1, min(max_rows, max_bytes // self._bytes_per_row)))
        return True

    def _chunk(self, batch: Any) -> Chunk:
        columns = []
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            column = self._column(name, values)
            columns += [column] if column else []
        return Chunk(batch.num_rows, batch.num_rows * self._bytes_per_row, columns)

    def _column(self, name: str, values: Any) -> Column | None:
        from ems.node.job.arrow import from_arrow

        try:
            column = from_arrow(name, values)
            return column and self._types.typed(column)
        except (Misfit, TypeError) as error:
            hint = "Columns are numbers, text, booleans, dates or times."
            raise ResultsError(f"{self.path}: {error}.", hint) from error


def _signature(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_closed_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            begin = file.read(4)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4))
            return size >= 12 and begin == file.read(4) == b"PAR1"
    except FileNotFoundError:
        return False


KINDS: dict[str, type[ResultsFile]] = {
    ".csv": CsvFile,
    ".jsonl": JsonLinesFile,
    ".ndjson": JsonLinesFile,
    ".parquet": ParquetFile,
}


def open_file(path: Path, types: KnownTypes) -> ResultsFile | None:
    """The reader for a file of that name; None if it is not a results file."""
    kind = KINDS.get(path.suffix.lower())
    return kind(path, types) if kind and not path.name.startswith(".") else None
