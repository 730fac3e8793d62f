"""The spools of a run folder: one for each run, as what it computed is stored as its own and not as a later one's.

`spool-3` has what run 3 computed; `spool-3-1` too, where the database was set back since, so that there is another run
of that number; `spool` is of an older EMS, which had one for all.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from ems.base import aside
from ems.base.errors import EmsError
from ems.spool import folder
from ems.spool.batch import Batch
from ems.spool.encoding import SpoolError
from ems.spool.folder import Spool

NAME = re.compile(r"spool(?:-(\d+)(?:-\d+)?)?")
UNKNOWN = 0  # the number of a run that no database knows: what it left gives way to all others

log = logging.getLogger(__name__)


def refuse(batch: Path, error: Exception) -> None:
    """What a damaged batch means where it cannot be computed again by itself."""
    hint = f"It was set aside as {batch}. Have the job run again: ems up --retry"
    raise EmsError(f"A batch of results is damaged: {error}", hint)


class Spools:
    """What run `attempt` writes, and what runs before it left behind in the same folder.

    `continues`: what was left counts as this run's own: only storing was left of the run just before it, or of itself.
    """

    def __init__(self, run_dir: Path, attempt: int, earlier: list[tuple[int, Path]], *, continues: bool) -> None:
        """`earlier`: as of `left`. OSError where no folder can be made."""
        left = [(of, Spool(path)) for of, path in earlier]
        self.own = Spool(_free(run_dir / f"spool-{attempt}"))
        self._parts = [*((attempt if continues else of, spool) for of, spool in left), (attempt, self.own)]
        self.damaged: Callable[[Path, Exception], None] = refuse
        """Told of a batch that was set aside, and where it is now."""

    def waiting(self) -> bool:
        """Whether anything is not stored yet."""
        return any(spool.waiting() for _, spool in self._parts)

    def waiting_bytes(self) -> int:
        """How many bytes the batches have that are not stored yet."""
        return sum(spool.waiting_bytes() for _, spool in self._parts)

    def batches(self) -> Iterator[tuple[int, Iterator[tuple[Path, Batch]]]]:
        """Run by run, the earliest first: its number, and what waits of it, oldest first."""
        return ((attempt, self._sound(spool)) for attempt, spool in self._parts)

    def _sound(self, spool: Spool) -> Iterator[tuple[Path, Batch]]:
        for path in spool.waiting():
            batch = self._read(path)
            if batch is not None:
                yield path, batch

    def _read(self, path: Path) -> Batch | None:
        try:
            return folder.read(path)
        except (SpoolError, PermissionError) as error:
            log.warning("Damaged, and set aside: %s", error)
            self.damaged(folder.set_aside(path), error)
        return None

    def waiting_rows(self) -> int:
        """How many rows are not stored yet; -1 if some of them cannot be read."""
        try:
            return sum(len(folder.read(path)) for _, spool in self._parts for path in spool.waiting())
        except (SpoolError, OSError) as error:
            log.warning("Damaged: %s", error)
            return -1

    def tidy(self) -> None:
        """Remove folders in which nothing is left."""
        for _, spool in self._parts:
            with suppress(OSError):  # damaged batches are kept in it
                spool.folder.rmdir()


def remove(found: Iterable[tuple[int, Path]]) -> None:
    """Remove spools, as of `left`, with what is not stored: nothing of it counts any more."""
    for _, path in found:
        aside.remove(path)


def _free(folder: Path) -> Path:
    """The folder, or one beside it if there is one already."""
    names = (folder.with_name(f"{folder.name}-{number}" if number else folder.name) for number in count())
    return next(name for name in names if not name.is_dir())


def left(run_dir: Path) -> list[tuple[int, Path]]:
    """The spools that runs left in the folder, the earliest first, each with its run's number (0: not known)."""
    found = ((NAME.fullmatch(path.name), path) for path in run_dir.iterdir() if path.is_dir())
    return sorted((int(match[1] or 0), path) for match, path in found if match)
