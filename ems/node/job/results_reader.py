"""What a command writes into its results folder, as batches, while it writes."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ems.node.job.columns import KnownTypes, stacked
from ems.node.job.results_file import CELLS_AT_ONCE, Chunk, ResultsError, ResultsFile, Rewritten
from ems.node.job.results_folder import ResultsFolder, Source
from ems.spool.batch import Batch, Column, ColumnType

MAX_ROWS = 10_000
MAX_BYTES = 8 * 2**20
STEP_BYTES = 2**20  # of one file
POLL_S = 0.5  # after which a poll begins nothing new


class ResultsReader:
    """Reads results files; all of them are rows of point 0.

    Rows are numbered in the order of reading, the files of each source taken by name. A poll is bounded in memory and
    in time. `ems.node.job.reading.reader_of` makes one for all that a stack file says.
    """

    def __init__(
        self,
        folder: Path,
        declared: Mapping[str, ColumnType] | None = None,
        sources: Callable[[KnownTypes], Sequence[Source]] | None = None,
        working: Path | None = None,
    ) -> None:
        """`declared`: types of columns. `sources`: makes what is read, instead of `folder` alone.

        `working`: where the job runs; errors name files below it, as those of `folder`, by their paths from there.
        """
        self._declared, self._folders = declared, [folder, *([working] if working else [])]
        self._make = sources or (lambda types: [ResultsFolder(folder, types)])
        self._late: set[Path] = set()  # files that were rewritten while the job ran
        self._restarted = False
        self._open()

    def _open(self) -> None:
        self._types = KnownTypes(self._declared)
        self._sources = self._make(self._types)
        self._over: set[Path] | None = None  # of a job that has ended, the files that have no more rows
        self._fault: ResultsError | None = None
        self.rows = 0  # read so far

    def poll(self, ended: bool = False) -> Batch | None:
        """The next rows, at most about MAX_ROWS or MAX_BYTES, maybe none of what was read; None if nothing is new.

        `ended`: the job has ended well: last lines without a newline count, and a Parquet file must be closed.
        A batch that `replaces` its point says that all rows before it are void: a file was rewritten, and all is read
        again. ResultsError names file and line of what cannot be read, once the rows before it were given.
        """
        if self._fault:
            raise self._fault
        chunks: list[Chunk] = []
        try:
            for chunk in () if ended and self.is_due else self._chunks(ended):
                chunks.append(chunk)
        except ResultsError as fault:
            self._fault = fault.below(self._folders)
        if self._fault and not chunks:
            raise self._fault
        if ended and self.is_due and not chunks:
            return self._restart()
        return self._batch(chunks) if chunks else None

    def verified(self) -> Iterator[None]:
        """Check, in steps, that what was read is still there as it was read; if not, and if `is_due`, poll again.

        ResultsError if a file is not as it was read, which may not be rewritten.
        """
        for source in self._sources:
            for file in source.files:
                try:
                    yield from file.verified()
                except Rewritten as fault:
                    self._forgive(source, file, fault)
                except ResultsError as fault:
                    raise fault.below(self._folders) from None

    @property
    def is_due(self) -> bool:
        """Whether a file was rewritten, so that all is to be read again when the job has ended: once."""
        return bool(self._late) and not self._restarted

    def read(self) -> set[Path]:
        """The files that were read as far as they went."""
        return {file.path for file in self._files() if file.settled and file.path not in self._late}

    def missing(self) -> list[str]:
        """The patterns of the stack file that match nothing."""
        return [pattern for source in self._sources for pattern in source.missing]

    def awaited(self) -> list[str]:
        """The columns that the stack file declares, and of which no row has a value."""
        return [name for name in self._declared or () if name in self._types.awaited]

    def _files(self) -> list[ResultsFile]:
        return [file for source in self._sources for file in source.files]

    def _restart(self) -> Batch:
        self._restarted = True
        self._late.clear()
        self._open()
        return Batch(array("q"), array("q"), (), replaces=(0,))

    def _forgive(self, source: Source, file: ResultsFile, fault: Rewritten) -> None:
        """The file waits for the end of the job; the fault, if it is not one that may be rewritten."""
        if self._restarted or not source.forgives:
            raise fault.below(self._folders)
        self._late.add(file.path)

    def _chunks(self, ended: bool) -> Iterator[Chunk]:
        rows, size, give_up_at = MAX_ROWS, MAX_BYTES, time.monotonic() + POLL_S
        names: set[str] = set()
        if self._over is None:
            for source in self._sources:
                source.look(ended)
            self._over = set() if ended else None
        for source in self._sources:
            for file in source.files:
                while rows > 0 and size > 0 and (chunk := self._take(source, file, rows, size, ended)):
                    yield chunk
                    rows, size = rows - chunk.rows, size - chunk.size
                    names.update(column.name for column in chunk.columns)
                    if time.monotonic() > give_up_at or (MAX_ROWS - rows) * len(names) >= CELLS_AT_ONCE:
                        return

    def _take(self, source: Source, file: ResultsFile, rows: int, size: int, ended: bool) -> Chunk | None:
        if file.path in self._late or (self._over and file.path in self._over):
            return None
        try:
            chunk = file.take(rows, min(size, STEP_BYTES), ended)
        except Rewritten as fault:
            self._forgive(source, file, fault)
            return None
        if chunk is None and self._over is not None:
            self._over.add(file.path)
        return chunk

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
