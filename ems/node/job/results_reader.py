"""What a command writes into its results folder, as batches, while it writes."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

from ems.node.job.columns import KnownTypes, stacked
from ems.node.job.results_file import CELLS_AT_ONCE, Chunk, ResultsError
from ems.node.job.results_folder import ResultsFolder
from ems.spool.batch import Batch, Column, ColumnType

MAX_ROWS = 10_000
MAX_BYTES = 8 * 2**20
STEP_BYTES = 2**20  # of one file
POLL_S = 0.5  # after which a poll begins nothing new


class ResultsReader:
    """Reads the results files of one folder; all of them are rows of point 0. `declared`: types of columns.

    Rows are numbered in the order of reading, files taken by name. A poll is bounded in memory and in time.
    """

    def __init__(self, folder: Path, declared: Mapping[str, ColumnType] | None = None) -> None:
        self._folder = ResultsFolder(folder, KnownTypes(declared))
        self._fault: ResultsError | None = None
        self.rows = 0  # read so far

    def poll(self, ended: bool = False) -> Batch | None:
        """The next rows, at most about MAX_ROWS or MAX_BYTES, maybe none of what was read; None if nothing is new.

        `ended`: the job has ended well: last lines without a newline count, and a Parquet file must be closed.
        ResultsError names file and line of what cannot be read, once the rows before it were given.
        """
        if self._fault:
            raise self._fault
        chunks: list[Chunk] = []
        try:
            for chunk in self._chunks(ended):
                chunks.append(chunk)
        except ResultsError as fault:
            self._fault = fault
        if self._fault and not chunks:
            raise self._fault
        return self._batch(chunks) if chunks else None

    def verified(self) -> Iterator[None]:
        """Check, in steps, that what was read is still there as it was read. ResultsError if it is not."""
        for file in self._folder.files:
            yield from file.verified()

    def read(self) -> list[Path]:
        """The files that rows were read from."""
        return [file.path for file in self._folder.files]

    def unread(self) -> list[str]:
        """The names of what else is in the folder, those of folders with a slash at their end."""
        return self._folder.others()

    def _chunks(self, ended: bool) -> Iterator[Chunk]:
        rows, size, give_up_at = MAX_ROWS, MAX_BYTES, time.monotonic() + POLL_S
        names: set[str] = set()
        self._folder.look(ended)
        for file in self._folder.files:
            while rows > 0 and size > 0 and (chunk := file.take(rows, min(size, STEP_BYTES), ended)):
                yield chunk
                rows, size = rows - chunk.rows, size - chunk.size
                names.update(column.name for column in chunk.columns)
                if time.monotonic() > give_up_at or (MAX_ROWS - rows) * len(names) >= CELLS_AT_ONCE:
                    return

    def _batch(self, chunks: list[Chunk]) -> Batch:
        chunks = [chunk for chunk in chunks if chunk.rows]
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
