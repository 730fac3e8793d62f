"""Results in Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ems.node.job.arrow_columns import columns_of
from ems.node.job.columns import KnownTypes
from ems.node.job.results_file import Chunk, ResultsError, ResultsFile, Rewritten, opened, signature


class ParquetFile(ResultsFile):
    """A Parquet file, read once it is closed: it then ends with its footer."""

    def __init__(self, path: Path, types: KnownTypes) -> None:
        super().__init__(path, types)
        self._batches: Iterator[Any] | None = None
        self._rows_left = 0
        self._read_as: tuple[int, int, int] | None = None
        self._bytes_per_row = 1

    def take(self, max_rows: int, max_bytes: int, ended: bool) -> Chunk | None:
        if self._read_as and self._read_as != signature(self.path):
            raise Rewritten(f"{self.path} was rewritten or removed after it was read.", "Write another file.")
        if not self._batches and not self._open(max_rows, max_bytes, ended):
            return None
        batch = next(self._batches or iter(()), None)
        if batch is None:
            return None
        self._rows_left -= batch.num_rows
        columns = columns_of(self.path, batch.schema.names, batch.columns, self._types)
        return Chunk(batch.num_rows, batch.num_rows * self._bytes_per_row, columns)

    @property
    def settled(self) -> bool:
        return self._batches is not None and not self._rows_left

    def _open(self, max_rows: int, max_bytes: int, ended: bool) -> bool:
        if not _is_closed_parquet(self.path):
            if ended and self.path.exists():
                raise ResultsError(f"{self.path} has no Parquet footer.", "Close the file before the job ends.")
            return False
        import pyarrow.parquet

        self._read_as = signature(self.path)
        try:
            file = pyarrow.parquet.ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise ResultsError(f"{self.path} cannot be read as Parquet: {error}") from error
        self._rows_left = file.metadata.num_rows
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        self._bytes_per_row = 1 + sum(g.total_byte_size for g in groups) // max(1, file.metadata.num_rows)
        self._batches = file.iter_batches(max(1, min(max_rows, max_bytes // self._bytes_per_row)))
        return True


def _is_closed_parquet(path: Path) -> bool:
    if not path.exists():
        return False
    with opened(path) as file:
        size = os.fstat(file).st_size
        return size >= 12 and os.pread(file, 4, 0) == os.pread(file, 4, size - 4) == b"PAR1"
