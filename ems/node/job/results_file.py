"""What a file of results is to those who read it while it grows."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ems.base.errors import EmsError
from ems.node.job.columns import KnownTypes
from ems.spool.batch import Column

MOST_COLUMNS = 10_000
CELLS_AT_ONCE = 1_000_000


class ResultsError(EmsError):
    """A results file that cannot be read: names file, line, column and value as far as there are such."""

    def below(self, folders: Sequence[Path]) -> ResultsError:
        """The same, with files called as the job calls them: what it left is elsewhere when somebody reads this."""
        message = self.message
        for folder in folders:
            message = message.replace(f"{folder}/", "")
        return type(self)(message, self.hint)


class Rewritten(ResultsError):
    """It is not any more what was read of it."""


@dataclass(frozen=True)
class Chunk:
    """Rows of one file; a column without any value so far is left out."""

    rows: int
    size: int  # bytes in the file
    columns: list[Column]


class ResultsFile(ABC):
    """One file that a job writes, read while it grows; `types`: what is known of its columns."""

    def __init__(self, path: Path, types: KnownTypes) -> None:
        self.path, self._types = path, types

    @abstractmethod
    def take(self, max_rows: int, max_bytes: int, ended: bool) -> Chunk | None:
        """The next complete rows, at least one if there is one; None if there is nothing new.

        `ended`: the job has ended well, so that a last line without a newline is complete. ResultsError on anything
        that cannot be read.
        """

    def verified(self) -> Iterator[None]:
        """Check, in steps, that the file is still what was read. Rewritten if it is not."""
        return iter(())

    @property
    @abstractmethod
    def settled(self) -> bool:
        """Whether all that it had when it was last looked at was read."""


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A regular file, to be read by its descriptor. ResultsError for anything else; nothing blocks."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ResultsError(f"{path} is not a regular file.", "Write results files as plain files.")
        yield file
    finally:
        os.close(file)


def signature(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
