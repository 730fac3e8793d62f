"""Results in CSV files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from ems.node.job.cells import QUOTED, Cells, is_number
from ems.node.job.columns import KnownTypes, Misfit
from ems.node.job.declared import RFC, Dialect
from ems.node.job.line_files import LineFile
from ems.node.job.records import MAX_RECORD_BYTES, Record
from ems.spool.batch import Column

_BLANK_CELL = re.compile(r'"((?:[^"]|"")*)"(?=[ \t]|$)|[^ \t]+')  # between runs of blanks
_COMMENT = re.compile(rb"#(?: |\r?\n|\Z)")  # as numpy writes it
ROW_NAMES = "row_names"
QUOTE_NAMES = "If the line does name them, put names that are numbers in quotes."
csv.field_size_limit(MAX_RECORD_BYTES)  # Python's own limit of 131,072 characters is a guard against broken quotes


@cache
def _quoted_cell(delimiter: str) -> re.Pattern[str]:
    return re.compile(rf'(?<![^{re.escape(delimiter)}])"(?:[^"]++|"")*+"?')


def _header(columns: int) -> str:
    """As somebody may write it into a stack file."""
    return f"header: [{', '.join(f'c{number}' for number in range(1, columns + 1))}]"


class CsvFile(LineFile):
    """RFC 4180 with a header line, or as its dialect says; what cells mean is in `ems.node.job.cells`."""

    quoted = True
    hint = (
        "A column keeps the type of its first value; only whole numbers may be followed by other numbers. Declare it "
        "in the stack file, as `results: {{columns: {{{name}: text}}}}`, or write JSON-lines, whose values have types."
    )

    def __init__(self, path: Path, types: KnownTypes, dialect: Dialect = RFC) -> None:
        super().__init__(path, types, dialect)
        self._cells: dict[str, Cells] = {}
        self._comment: Record | None = None  # the last line before the first row that began with `# `
        self._quoted_cell = _quoted_cell(dialect.delimiter)

    def _row(self, record: Record) -> list[str] | None:
        if record.data.startswith((b"(", b"[", b"{")):
            self._refuse_literal(self._decode(record), record.line)
        if not self._names and self._dialect.foreign and _COMMENT.match(record.data):
            self._comment = record._replace(data=record.data[1:].strip())
            return None
        row = self._split(record)
        if not row or (not self._names and self._is_header(row, record.line)):
            return None
        if len(row) != len(self._names):
            named = "`results: {format: {header: …}}`" if self._dialect.header else "the header"
            raise self._wrong(record.line, f"{len(row)} fields, where {named} has {len(self._names)}")
        return row

    def _is_header(self, row: list[str], line: int) -> bool:
        """Whether the first row that there is names the columns; else something before it has done so."""
        if self._dialect.header:
            self._name(self._dialect.header, line)
            return [cell.removeprefix(QUOTED) for cell in row] == [*self._names]
        if self._comment and self._comment.data and all(map(is_number, row)):
            self._start(self._split(self._comment), self._comment.line)
            return False
        self._start(row, line)
        return True

    def _split(self, record: Record) -> list[str]:
        """The cells, those in quotes with their mark."""
        text = self._decode(record)
        if self._dialect.delimiter == " ":
            cells = _BLANK_CELL.finditer(text.rstrip("\r\n"))
            return [cell[0] if cell[1] is None else QUOTED + cell[1].replace('""', '"') for cell in cells]
        if '"' not in text:
            plain = text.rstrip("\r\n")
            return plain.split(self._dialect.delimiter) if plain else []
        marked = self._quoted_cell.sub(lambda cell: f'"{QUOTED}{cell[0][1:]}', text)
        try:
            return next(csv.reader([marked], delimiter=self._dialect.delimiter, strict=True), [])
        except csv.Error as error:
            between = re.search(r'"([;\t| ])["\d]', text) if self._dialect.foreign else None
            said = self._said_separator(text, between[1]) if between else "Quote cells as RFC 4180 says."
            raise self._wrong(record.line, f"{error}", said) from error

    def _start(self, row: list[str], line: int) -> None:
        self._refuse_no_header(row, line)
        self._name([name.removeprefix(QUOTED) for name in row], line)

    def _name(self, names: Sequence[str], line: int) -> None:
        if self._dialect.foreign and names[0] == "" and len(names) > 1:
            names = [ROW_NAMES, *names[1:]]  # as `write.csv` and `to_csv` begin, unless they are told otherwise
        if "" in names:
            hint = "In R: write.csv(…, row.names = FALSE). With pandas: to_csv(…, index=False)."
            raise self._wrong(line, f"column {names.index('') + 1} of the header has no name", hint)
        for name in names:
            if name in self._names:
                raise self._wrong(line, f"the header names {name!r} twice")
            self._note(name, line)
            self._cells[name] = Cells(name, self._types.declared.get(name))

    def _refuse_no_header(self, row: list[str], line: int) -> None:
        if numbers := [name for name in row if is_number(name)]:
            hint = "The first line must name the columns; put names that are numbers in quotes."
            said = f"Name the columns in the stack file, as results: {{format: {{{_header(len(row))}}}}}. {QUOTE_NAMES}"
            problem = f"the header has numbers: {', '.join(numbers[:5])}"
            raise self._wrong(line, problem, said if self._dialect.foreign else hint)
        signs = ";\t| ," if self._dialect.foreign else ";\t"
        separator = next((sign for sign in signs if sign in row[0] and sign != self._dialect.delimiter), "")
        if len(row) == 1 and separator and not row[0].startswith(QUOTED):
            hint = "Separate cells by commas. In R: write.csv, not write.csv2. With pandas: to_csv(…, sep=',')."
            said = self._said_separator(row[0], separator) if self._dialect.foreign else hint
            raise self._wrong(line, f"the header is one column with {separator!r} in its name", said)

    def _said_separator(self, cell: str, separator: str) -> str:
        parts = cell.split() if separator == " " else cell.split(separator)
        header = f", {_header(len(parts))}" if all(map(is_number, parts)) else ""
        how = f"results: {{format: {{delimiter: {json.dumps(separator)}{header}}}}}"
        return f"Say in the stack file what separates cells, as {how}. Put the name of a single column in quotes."

    def _turned(self, rows: list[list[str]]) -> Iterable[tuple[str, Sequence[str]]]:
        return zip(self._names, zip(*rows, strict=True), strict=False)

    def _column(self, name: str, values: Sequence[str]) -> Column | None:
        cells = self._cells[name]
        with suppress(Misfit):
            return self._types.typed(name, cells.values(values))
        return self._one_by_one(name, values)

    def _one_by_one(self, name: str, values: Sequence[str]) -> Column | None:
        """Misfit for the first value that does not fit, whether as a cell of the file or in the run's column."""
        cells = self._cells[name]
        try:
            return self._types.typed(name, cells.values(values, quick=False))
        except Misfit as misfit:
            self._types.typed(name, cells.values(values[: misfit.row], quick=False))
            raise
