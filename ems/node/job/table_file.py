"""Results in files that hold one table and are read as a whole, once they are closed."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from ems.node.job.arrow_columns import columns_of
from ems.node.job.columns import KnownTypes
from ems.node.job.results_file import Chunk, ResultsError, ResultsFile, Rewritten, opened, signature


class TableFile(ResultsFile):
    """It is in memory from when it is opened until its last row was taken."""

    what = ""  # the form, in messages

    def __init__(self, path: Path, types: KnownTypes) -> None:
        super().__init__(path, types)
        self._read_as: tuple[int, int, int] | None = None
        self._table: Any = None  # pyarrow.Table: what is left of it

    def take(self, max_rows: int, max_bytes: int, ended: bool) -> Chunk | None:
        if self._read_as is None and not self._open(ended):
            return None
        if self._read_as != signature(self.path):
            raise Rewritten(f"{self.path} was rewritten or removed after it was read.", "Write another file.")
        if self._table is None:
            return None
        row_bytes = 1 + self._table.nbytes // max(self._table.num_rows, 1)
        rows = min(max_rows, max(max_bytes // row_bytes, 1), self._table.num_rows)
        part = self._table.slice(0, rows).combine_chunks()
        self._table = self._table.slice(rows) if rows < self._table.num_rows else None
        arrays = [column.chunk(0) if column.num_chunks else column.combine_chunks() for column in part.columns]
        return Chunk(rows, rows * row_bytes, columns_of(self.path, part.column_names, arrays, self._types))

    @property
    def settled(self) -> bool:
        return self._read_as is not None and self._table is None

    def _open(self, ended: bool) -> bool:
        if not self.path.exists() or not (ended or self._is_closed()):
            return False
        with opened(self.path):
            found = signature(self.path)
        self._table = self._read()
        self._read_as = found
        return True

    def _wrong(self, problem: object, hint: str = "") -> ResultsError:
        return ResultsError(f"{self.path} cannot be read as {self.what}: {problem}.", hint)

    @abstractmethod
    def _is_closed(self) -> bool:
        """Whether its writer is done with it, asked while the job runs."""

    @abstractmethod
    def _read(self) -> Any:
        """All of it, as a pyarrow.Table. ResultsError if it is damaged, or not one table."""
