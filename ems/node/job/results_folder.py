"""The files that a command writes its results to: CSV, JSON-lines, Parquet; folders of them once the job has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ems.node.job.columns import KnownTypes
from ems.node.job.csv_file import CsvFile
from ems.node.job.json_file import JsonLinesFile
from ems.node.job.parquet_file import ParquetFile
from ems.node.job.results_file import ResultsError, ResultsFile

KINDS: dict[str, type[ResultsFile]] = {
    ".csv": CsvFile,
    ".jsonl": JsonLinesFile,
    ".ndjson": JsonLinesFile,
    ".parquet": ParquetFile,
}


class ResultsFolder:
    """A folder of results files. Pipes, sockets and devices of such names are left alone."""

    def __init__(self, folder: Path, types: KnownTypes) -> None:
        self._folder, self._types = folder, types
        self._known: dict[Path, ResultsFile] = {}

    @property
    def files(self) -> list[ResultsFile]:
        """Those that were found, by name."""
        return [self._known[path] for path in sorted(self._known)]

    def look(self, ended: bool) -> None:
        """Find new files; with `ended` also those in folders whose names end like files, as Dask and Spark write them.

        ResultsError for a folder whose folders have values in their names: the files lack these.
        """
        for path in self._folder.iterdir():
            self._add(path)
            if ended and _is_results(path) and path.is_dir():
                for member in _members(path):
                    self._add(member)

    def others(self) -> list[str]:
        """Names of what is not read, those of folders with a slash at their end."""
        return sorted(name for path in self._folder.iterdir() if _is_shown(path) for name in self._unread(path))

    def _add(self, path: Path) -> None:
        if path not in self._known and _is_results(path) and path.is_file():
            self._known[path] = KINDS[path.suffix.lower()](path, self._types)

    def _unread(self, path: Path) -> list[str]:
        if path in self._known:
            return []
        if not path.is_dir():
            return [path.name]
        members = list(_members(path)) if _is_results(path) else []
        unread = [str(member.relative_to(self._folder)) for member in members if member not in self._known]
        return unread if len(unread) < len(members) else [f"{path.name}/"]


def _is_results(path: Path) -> bool:
    return path.suffix.lower() in KINDS and _is_shown(path)


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".")


def _members(folder: Path) -> Iterator[Path]:
    """The files in it, at any depth, but for what writers keep for themselves, as `_SUCCESS`."""
    for path in sorted(folder.rglob("*")):
        names = path.relative_to(folder).parts
        if any(name.startswith((".", "_")) for name in names) or path.is_dir():
            continue
        if any("=" in name for name in names[:-1]):
            hint = "Write it without partition columns (partitionBy, partition_on): the names of folders are not read."
            raise ResultsError(f"{folder} is divided by the values of a column: {Path(*names)}.", hint)
        yield path
