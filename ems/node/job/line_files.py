"""Results in text files: what CSV and JSON-lines have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ems.base.messages import show
from ems.node.job.columns import KnownTypes, Misfit
from ems.node.job.declared import RFC, Dialect
from ems.node.job.literals import fix, literal
from ems.node.job.records import Record
from ems.node.job.results_file import CELLS_AT_ONCE, MOST_COLUMNS, Chunk, ResultsError, ResultsFile
from ems.node.job.tail import Tail
from ems.spool.batch import Column


@dataclass
class Rows:
    """Rows that were read, with the line of each; of how many records, with how many bytes."""

    rows: list[Any] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    records: int = 0
    size: int = 0


class LineFile(ResultsFile):
    """A text file of records. The rows before its first fault are taken, however the reading was divided."""

    quoted = False
    hint = ""  # about a value that does not fit its column

    def __init__(self, path: Path, types: KnownTypes, dialect: Dialect = RFC) -> None:
        super().__init__(path, types)
        self._dialect = dialect
        self._tail = Tail(path, self.quoted and dialect.delimiter != " ", dialect.delimiter)
        self._names: dict[str, None] = {}  # of the columns so far
        self._waiting: list[Record] = []  # complete, but not read yet
        self._fault: ResultsError | None = None

    def take(self, max_rows: int, max_bytes: int, ended: bool) -> Chunk | None:
        if self._fault:
            raise self._fault
        records = self._waiting or self._tail.take(max_rows, max_bytes, ended)
        if records is None:
            return None
        read = self._read(records)
        self._waiting = records[read.records :]
        columns = self._columns(read)
        if self._fault and not read.rows:
            raise self._fault
        return Chunk(len(read.rows), read.size, columns)

    def verified(self) -> Iterator[None]:
        return self._tail.verified()

    @property
    def settled(self) -> bool:
        return self._fault is None and not self._waiting

    @abstractmethod
    def _row(self, record: Record) -> Any:
        """None if the record is not a row. Has noted the row's names."""

    @abstractmethod
    def _turned(self, rows: list[Any]) -> Iterable[tuple[str, Any]]:
        """Column by column."""

    @abstractmethod
    def _column(self, name: str, values: Any) -> Column | None:
        """Of values as `_turned` has them. Misfit at the first that does not fit."""

    def _read(self, records: list[Record]) -> Rows:
        """Up to a fault, which is noted, and no more than CELLS_AT_ONCE."""
        read = Rows()
        try:
            for record in records:
                row = self._row(record)
                read.records += 1
                read.size += len(record.data)
                if row is not None:
                    read.rows.append(row)
                    read.lines.append(record.line)
                if len(read.rows) * len(self._names) >= CELLS_AT_ONCE:
                    break
        except ResultsError as fault:
            self._fault = fault
        return read

    def _columns(self, read: Rows) -> list[Column]:
        """Up to the first row with a value that does not fit: that is a fault, and such rows leave `read`."""
        before = dict(self._types.known)
        columns: list[Column] = []
        first: tuple[Misfit, str] | None = None
        for name, values in self._turned(read.rows):
            try:
                column = self._column(name, values)
            except Misfit as misfit:
                first = (misfit, name) if first is None or misfit.row < first[0].row else first
            else:
                columns += [column] if column else []
        if first is None:
            return columns
        row, name = first[0].row, first[1]
        self._fault = self._wrong(read.lines[row], str(first[0]), self.hint.format(name=name))
        del read.rows[row:], read.lines[row:]
        self._types.known = before  # what does not become rows does not make types
        return self._columns(read)

    def _note(self, name: str, line: int) -> None:
        self._names[name] = None
        if len(self._names) > MOST_COLUMNS:
            hint = "Write a row for each value: what varies belongs in cells, not in names of columns."
            raise self._wrong(line, f"more than {MOST_COLUMNS:,} columns", hint)

    def _decode(self, record: Record) -> str:
        try:
            return record.data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = record.line + record.data.count(b"\n", 0, error.start)
            bad = record.data[error.start : error.end]
            raise self._wrong(line, f"{bad!r} is not UTF-8", "Write results files in UTF-8.") from error

    def _refuse_literal(self, text: str, line: int) -> None:
        if self._dialect.foreign and (kind := literal(text)):
            shown = show(text.strip())
            raise self._wrong(
                line,
                f"a {kind} of Python, {shown}, not a row",
                fix(kind, self._dialect.delimiter if self.quoted else ""),
            )

    def _wrong(self, line: int, problem: str, hint: str = "") -> ResultsError:
        return ResultsError(f"{self.path}:{line}: {problem}.", hint)
