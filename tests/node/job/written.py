"""What programs write, read as a job's results are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ems.node.job.declared import Declared
from ems.node.job.reading import reader_of
from ems.node.job.results_reader import ResultsReader
from ems.spool.batch import Batch


def reader(folder: Path, **results: Any) -> ResultsReader:
    """Of the working directory `folder`; `results` as in a stack file."""
    (folder.parent / "results").mkdir(exist_ok=True)
    return reader_of(
        folder.parent / "results", folder, folder.parent / "stdout", Declared.of({"table": "t", **results})
    )


def to_the_end(found: ResultsReader) -> Iterator[Batch]:
    """All batches after the job has ended well."""
    while True:
        while (batch := found.poll(ended=True)) is not None:
            yield batch
        for _ in found.verified():
            pass
        if not found.is_due:
            return


def columns(found: ResultsReader) -> dict[str, list[Any]]:
    """All that the reader has: the values of each column."""
    return joined(to_the_end(found))


def joined(batches: Iterator[Batch]) -> dict[str, list[Any]]:
    """What is stored of these batches."""
    rows: list[Mapping[str, Any]] = []
    for batch in batches:
        rows = [] if batch.replaces else rows
        named = {column.name: column.values for column in batch.columns}
        rows += [{name: values[row] for name, values in named.items()} for row in range(len(batch))]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
