"""Results in CSV files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ems.node.job.cells import QUOTED, Cells, is_number
from ems.node.job.columns import KnownTypes, Misfit
from ems.node.job.line_files import LineFile
from ems.node.job.records import MAX_RECORD_BYTES, Record
from ems.spool.batch import Column

_QUOTED_CELL = re.compile(r'(?<![^,])"(?:[^"]++|"")*+"?')
csv.field_size_limit(MAX_RECORD_BYTES)  # Python's own limit of 131,072 characters is a guard against broken quotes


class CsvFile(LineFile):
    """RFC 4180 with a header line; what cells mean is in `ems.node.job.cells`."""

    quoted = True
    hint = (
        "A column keeps the type of its first value; only whole numbers may be followed by other numbers. Declare it "
        "in the stack file, as `results: {{columns: {{{name}: text}}}}`, or write JSON-lines, whose values have types."
    )

    def __init__(self, path: Path, types: KnownTypes) -> None:
        super().__init__(path, types)
        self._cells: dict[str, Cells] = {}

    def _row(self, record: Record) -> list[str] | None:
        row = self._split(record)
        if not row:
            return None
        if not self._names:
            self._start(row, record.line)
            return None
        if len(row) != len(self._names):
            raise self._wrong(record.line, f"{len(row)} fields, where the header has {len(self._names)}")
        return row

    def _split(self, record: Record) -> list[str]:
        """The cells, those in quotes with their mark."""
        text = self._decode(record)
        if '"' not in text:
            plain = text.rstrip("\r\n")
            return plain.split(",") if plain else []
        marked = _QUOTED_CELL.sub(lambda cell: f'"{QUOTED}{cell[0][1:]}', text)
        try:
            return next(csv.reader([marked], strict=True), [])
        except csv.Error as error:
            raise self._wrong(record.line, f"{error}", "Quote cells as RFC 4180 says.") from error

    def _start(self, row: list[str], line: int) -> None:
        self._refuse_no_header(row, line)
        names = [name.removeprefix(QUOTED) for name in row]
        if "" in names:
            hint = "In R: write.csv(…, row.names = FALSE). With pandas: to_csv(…, index=False)."
            raise self._wrong(line, f"column {names.index('') + 1} of the header has no name", hint)
        for name in names:
            if name in self._names:
                raise self._wrong(line, f"the header names {name!r} twice")
            self._note(name, line)
            self._cells[name] = Cells(name, self._types.declared.get(name))

    def _refuse_no_header(self, row: list[str], line: int) -> None:
        if all(map(is_number, row)):
            hint = "The first line must name the columns; put names that are numbers in quotes."
            raise self._wrong(line, f"the header has only numbers: {', '.join(row[:5])}", hint)
        separator = next((sign for sign in ";\t" if sign in row[0]), "")
        if len(row) == 1 and separator and not row[0].startswith(QUOTED):
            hint = "Separate cells by commas. In R: write.csv, not write.csv2. With pandas: to_csv(…, sep=',')."
            raise self._wrong(line, f"the header is one column with {separator!r} in its name", hint)

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
