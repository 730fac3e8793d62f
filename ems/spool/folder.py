"""The spool: a folder of batch files between a job and the database.

Batches are named `00000001.batch`, `00000002.batch`, … and are stored in that order. Each is written under a name
that ends in `.tmp`, flushed to the disk and renamed; whoever stores it deletes it after the database's commit.
Whatever else lies in the folder is not the spool's, and is left alone: copies, folders, what systems put beside files.

Standard library alone, Python 3.9 or newer: drivers in other environments write spools too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ems.base import aside
from ems.spool.batch import Batch
from ems.spool.encoding import SpoolError, decode, encode

BATCH = re.compile(r"(\d{8,})\.batch")
UNFINISHED = re.compile(r"\d{8,}\.batch\.tmp")
DAMAGED = ".damaged"


class Spool:
    """A folder of batches. One process writes; one thread reads and deletes, which may be another one."""

    def __init__(self, folder: Path) -> None:
        """Make `folder` if need be and remove what an interrupted write left. OSError where that is impossible."""
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in _files(folder, UNFINISHED):
            leftover.unlink()
        self.folder = folder
        taken = (BATCH.match(path.name) for path in folder.iterdir())  # also by what is no file, or was set aside
        self._number = max((int(match[1]) for match in taken if match), default=0)

    def write(self, batch: Batch) -> None:
        """Append `batch`; it is on the disk on return. OSError (disk full, …) leaves the spool as it was."""
        self.write_encoded(encode(batch))

    def write_encoded(self, data: bytes) -> None:
        """Append what `encode` made of a batch, maybe in another process; otherwise as `write`."""
        aside.write(self.folder / f"{self._number + 1:08d}.batch", data)
        self._number += 1

    def waiting(self) -> list[Path]:
        """The batches that are not stored yet, oldest first."""
        return sorted(_files(self.folder, BATCH), key=lambda path: int(path.stem))

    def waiting_bytes(self) -> int:
        """How many bytes the batches have that are not stored yet."""
        return sum(map(_size, self.waiting()))


def set_aside(batch: Path) -> Path:
    """Take a damaged batch out of its spool; where it is kept, for people who look at it."""
    return batch.replace(batch.with_name(batch.name + DAMAGED))


def _files(folder: Path, form: re.Pattern[str]) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry) for entry in entries if form.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)]


def _size(batch: Path) -> int:
    """In bytes; 0 for one that was stored and removed meanwhile."""
    try:
        return batch.stat().st_size
    except FileNotFoundError:
        return 0


def read(path: Path) -> Batch:
    """The batch in `path`; SpoolError naming it if it is truncated or damaged, OSError if it cannot be read."""
    try:
        return decode(path.read_bytes())
    except SpoolError as error:
        raise SpoolError(f"{path}: {error.message}", error.hint) from error
