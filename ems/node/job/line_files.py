"""Results in text files with one record a line: CSV, JSON-lines."""

from __future__ import annotations

import csv
import io
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any

from ems.node.job.columns import KnownTypes, Misfit
from ems.node.job.results_file import Chunk, ResultsError, ResultsFile
from ems.node.job.tail import MAX_RECORD_BYTES, Lines, Tail
from ems.spool.batch import Column

_BOM = b"\xef\xbb\xbf"
csv.field_size_limit(MAX_RECORD_BYTES)  # Python's own limit of 131,072 characters is a guard against broken quotes


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
