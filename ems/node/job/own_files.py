"""Results in files whose names a program chose: those that `results: files` names, and its standard output."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ems.node.job.columns import KnownTypes
from ems.node.job.declared import Declared
from ems.node.job.forms import made
from ems.node.job.results_file import ResultsError, ResultsFile, signature
from ems.node.job.results_folder import Source, members
from ems.spool.endings import IN_FOLDER, RESULTS

LOOK_S = 1.0  # between two looks at what patterns with a sign match
Signatures = Mapping[Path, tuple[int, int, int] | None]


def is_pattern(name: str) -> bool:
    """Whether it may match several files."""
    return glob.has_magic(name)


def matched(pattern: str, working: Path, results: Path) -> Iterator[Path]:
    """What is there of this pattern, in no order."""
    folder, name = (results, pattern.removeprefix(RESULTS)) if pattern.startswith(RESULTS) else (working, pattern)
    if not is_pattern(name):
        yield from [folder / name] if (folder / name).exists() else []
        return
    found = glob.iglob(name, root_dir=folder, recursive=True)  # noqa: PTH207  (Path.glob also finds dot files)
    yield from (folder / each for each in found)


def begin(said: Declared, working: Path) -> list[str]:
    """Before the job starts, take away what the code has under a name that the job is to write; which names these were.

    So all rows are of this run, also where the program appends. What only a pattern matches may be an input, and stays.
    """
    taken = [name for name in said.files if not is_pattern(name) and (working / name).is_file()]
    for name in taken:
        (working / name).unlink()
    return taken


def shipped(said: Declared, working: Path, results: Path) -> Signatures:
    """What patterns match before the job starts: not its results."""
    return {path: signature(path) for pattern in said.files for path in matched(pattern, working, results)}


class OwnFiles(Source):
    """The files that `results: files` names, but for those that were there before the job."""

    forgives = True

    def __init__(self, said: Declared, working: Path, results: Path, before: Signatures, types: KnownTypes) -> None:
        super().__init__()
        self._said, self._before, self._types = said, before, types
        self._working, self._results = working, results
        self._found: dict[str, bool] = dict.fromkeys(said.files, False)  # whether a pattern matched anything
        self._due = 0.0

    @property
    def missing(self) -> list[str]:
        """The patterns that match nothing of the job's."""
        return [pattern for pattern, found in self._found.items() if not found]

    def look(self, ended: bool) -> None:
        """ResultsError for a folder, and for what lies elsewhere or was changed, not made, by the job."""
        is_due = ended or time.monotonic() >= self._due
        for pattern in self._said.files:
            if is_due or not is_pattern(pattern):
                for path in matched(pattern, self._working, self._results):
                    self._found[pattern] |= self._consider(pattern, path, ended)
        if is_due:
            self._due = time.monotonic() + LOOK_S

    def _consider(self, pattern: str, path: Path, ended: bool) -> bool:
        if path in self.known:
            return True
        if path in self._before and self._before[path] == signature(path):
            return False
        if pattern.startswith(RESULTS) and path.suffix.lower() in IN_FOLDER:
            return True  # read anyway
        if path.is_dir():
            return ended and self._add_members(pattern, path)
        if not path.is_file():
            return False
        self._check(path)
        self.known[path] = self._made(path)
        return True

    def _add_members(self, pattern: str, folder: Path) -> bool:
        """Of a folder whose name ends like a file, as Dask and Spark write them."""
        if not self._said.type_of(folder):
            if is_pattern(pattern):
                return False
            raise ResultsError(f"{folder} is a folder.", f"Name its files: results: {{files: [{pattern}/*.csv]}}.")
        found = [member for member in members(folder) if self._said.type_of(member)]
        self.known.update({member: self._made(member) for member in found if member not in self.known})
        return bool(found)

    def _check(self, path: Path) -> None:
        real = path.resolve()
        if not any(real.is_relative_to(folder.resolve()) for folder in (self._working, self._results)):
            raise ResultsError(f"{path} leads out of the working directory, to {real}.", "Write results into it.")
        if path in self._before:
            raise ResultsError(
                f"{path} was there before the job, which changed it: which rows are of this run is not known.",
                "Name it in `results: files` without a pattern; then the job begins without it.",
            )

    def _made(self, path: Path) -> ResultsFile:
        return made(self._said.type_of(path), path, self._types, self._said.dialect(path, foreign=True))


class Output(Source):
    """The job's standard output, a file of the form that `results: stdout` says."""

    def __init__(self, said: Declared, file: Path, types: KnownTypes) -> None:
        super().__init__()
        self._said, self._file, self._types = said, file, types

    def look(self, ended: bool) -> None:  # noqa: ARG002
        if not self.known and self._file.exists():
            dialect = self._said.dialect(self._file, foreign=True)
            self.known[self._file] = made(self._said.stdout, self._file, self._types, dialect)
