"""The files that a command writes its results to, each read while it grows: CSV, JSON-lines, Parquet."""

from __future__ import annotations

from pathlib import Path

from ems.node.job.columns import KnownTypes
from ems.node.job.line_files import CsvFile, JsonLinesFile
from ems.node.job.parquet_file import ParquetFile
from ems.node.job.results_file import ResultsFile

KINDS: dict[str, type[ResultsFile]] = {
    ".csv": CsvFile,
    ".jsonl": JsonLinesFile,
    ".ndjson": JsonLinesFile,
    ".parquet": ParquetFile,
}


def open_file(path: Path, types: KnownTypes) -> ResultsFile | None:
    """The reader for a file of that name; None if it is not a results file."""
    kind = KINDS.get(path.suffix.lower())
    return kind(path, types) if kind and not path.name.startswith(".") else None
