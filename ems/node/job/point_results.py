"""What one program has written for its point, read once it has ended well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ems.node.job.results_reader import ResultsReader
from ems.spool.batch import Batch, ColumnType


@dataclass(frozen=True)
class PointRows:
    """The rows of a point, and the files that they were read from: those are not needed any more."""

    batches: tuple[Batch, ...]
    read: tuple[Path, ...]


def rows_of(
    results_folder: Path,
    working_folder: Path,  # noqa: ARG001  (files of the program's own names, and its output, are not read yet)
    stdout_file: Path,  # noqa: ARG001
    declared: Mapping[str, ColumnType],
) -> PointRows:
    """All rows; `declared`: types of columns. ResultsError names file, line and value of what cannot be read."""
    reader = ResultsReader(results_folder, declared)
    batches = []
    while (batch := reader.poll(ended=True)) is not None:
        batches.append(batch)
    return PointRows(tuple(batches), tuple(reader.read()))
