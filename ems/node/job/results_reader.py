"""What a command writes into its results folder, as batches, while it writes."""

from __future__ import annotations

from array import array
from pathlib import Path

from ems.node.job.columns import KnownTypes, stacked
from ems.node.job.results_file import Chunk, ResultsFile
from ems.node.job.results_files import open_file
from ems.spool.batch import Batch, Column

MAX_ROWS = 10_000
MAX_BYTES = 8 * 2**20


class ResultsReader:
    """Reads `*.csv`, `*.jsonl`, `*.ndjson` and `*.parquet` of one folder; all of them are rows of point 0.

    Rows are numbered in the order of reading, files taken by name. Memory is bounded by what one poll may read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, ResultsFile] = {}
        self._types = KnownTypes()
        self.rows = 0  # read so far

    def poll(self, ended: bool = False) -> Batch | None:
        """The next rows, at most about MAX_ROWS or MAX_BYTES; None if there is nothing new.

        `ended`: the job has ended well: last lines without a newline count, and a Parquet file must be closed.
        ResultsError names file and line of what cannot be read.
        """
        self._look_for_files()
        chunks: list[Chunk] = []
        rows, size = MAX_ROWS, MAX_BYTES
        for path in sorted(self._files):
            while rows > 0 and size > 0 and (chunk := self._files[path].take(rows, size, ended)):
                rows, size = rows - chunk.rows, size - chunk.size
                chunks += [chunk] if chunk.rows else []
        return self._batch(chunks) if chunks else None

    def _look_for_files(self) -> None:
        for path in self._folder.iterdir():
            if path not in self._files and (file := open_file(path, self._types)):
                self._files[path] = file

    def _batch(self, chunks: list[Chunk]) -> Batch:
        count = sum(chunk.rows for chunk in chunks)
        numbers = array("q", range(self.rows, self.rows + count))
        self.rows += count
        return Batch(array("q", bytes(8 * count)), numbers, _columns(chunks))


def _columns(chunks: list[Chunk]) -> tuple[Column, ...]:
    if len(chunks) == 1:
        return tuple(chunks[0].columns)
    named = [(chunk.rows, {column.name: column for column in chunk.columns}) for chunk in chunks]
    names = {name: None for _, columns in named for name in columns}
    return tuple(stacked([(rows, columns.get(name)) for rows, columns in named]) for name in names)
