"""The files that a command writes its results to: CSV, JSON-lines, Parquet; folders of them once the job has ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from ems.node.job.columns import KnownTypes
from ems.node.job.declared import Declared
from ems.node.job.forms import made
from ems.node.job.results_file import ResultsError, ResultsFile
from ems.spool.endings import IN_FOLDER, type_of

NOTHING_SAID = Declared()


class Source(ABC):
    """Where results files come from; `known` has those that were found."""

    forgives = False
    """Whether a file that was rewritten is read once more, as a whole, when the job has ended."""

    def __init__(self) -> None:
        self.known: dict[Path, ResultsFile] = {}

    @property
    def missing(self) -> list[str]:
        """What the stack file names of it and is not there."""
        return []

    @property
    def files(self) -> list[ResultsFile]:
        """Those that were found, by name."""
        return [self.known[path] for path in sorted(self.known)]

    @abstractmethod
    def look(self, ended: bool) -> None:
        """Find new files. `ended`: the job has ended well."""


class ResultsFolder(Source):
    """A folder of results files. Pipes, sockets and devices of such names are left alone."""

    def __init__(self, folder: Path, types: KnownTypes, said: Declared = NOTHING_SAID) -> None:
        super().__init__()
        self._folder, self._types, self._said = folder, types, said

    def look(self, ended: bool) -> None:
        """Find new files; with `ended` also those in folders whose names end like files, as Dask and Spark write them.

        ResultsError for a folder whose folders have values in their names: the files lack these.
        """
        for path in self._folder.iterdir():
            self._add(path)
            if ended and _is_results(path) and path.is_dir():
                for member in members(path):
                    self._add(member)

    def _add(self, path: Path) -> None:
        if path not in self.known and _is_results(path) and path.is_file():
            dialect = self._said.dialect(path, foreign=False)
            self.known[path] = made(type_of(path), path, self._types, dialect)


def _is_results(path: Path) -> bool:
    return path.suffix.lower() in IN_FOLDER and _is_shown(path)


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".")


def members(folder: Path) -> Iterator[Path]:
    """The files in it, at any depth, but for what writers keep for themselves, as `_SUCCESS`.

    ResultsError if its folders have values in their names.
    """
    for path in sorted(folder.rglob("*")):
        names = path.relative_to(folder).parts
        if any(name.startswith((".", "_")) for name in names) or path.is_dir():
            continue
        if any("=" in name for name in names[:-1]):
            hint = "Write it without partition columns (partitionBy, partition_on): the names of folders are not read."
            raise ResultsError(f"{folder} is divided by the values of a column: {Path(*names)}.", hint)
        yield path
