"""What one program has written for its point, read once it has ended well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ems.node.job.results_reader import ResultsReader
from ems.spool.batch import Batch


@dataclass(frozen=True)
class PointRows:
    """The rows of a point, and the files that they were read from: those are not needed any more."""

    batches: tuple[Batch, ...]
    read: tuple[Path, ...]


def rows_of(reader: ResultsReader) -> PointRows:
    """All rows. ResultsError names file, line and value of what cannot be read.

    `reader`: made before the program started (`ems.node.job.reading.reader_of`).
    """
    batches = []
    while (batch := reader.poll(ended=True)) is not None:
        batches.append(batch)
    return PointRows(tuple(batches), tuple(reader.read()))
