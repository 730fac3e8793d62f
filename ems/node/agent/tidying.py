"""The end of a run's job: what it left is moved aside, and the row says what that is and how it may become rows."""

from __future__ import annotations

import json
import logging
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ems.base.messages import counted, plain, some
from ems.databases import Claim, Outcome, State
from ems.node.agent import advice, leftovers
from ems.node.agent.job_log import say_in_log
from ems.node.agent.leftovers import FileLeft
from ems.node.job.declared import Declared
from ems.node.job.results_reader import ResultsReader

PLAIN = re.compile(r"[A-Za-z0-9_./…-]{1,200}")
NOTHING_WRITTEN = "the job wrote none into the folder that EMS_RESULTS_DIR names"

log = logging.getLogger(__name__)


def printed_first(run_dir: Path, attempt: int) -> str:
    """The first lines that the job of this attempt printed, as far as the log has them."""
    file, mark = run_dir / "job.log", f"--- attempt {attempt} ---\n".encode()
    if not file.exists() or not file.stat().st_size:
        return ""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as log:
        start = log.rfind(mark)
    return advice.beginning(file, start + len(mark)) if start >= 0 else ""


@dataclass(frozen=True)
class Tidying:
    """Of the run that holds `claim`, in its folder. No fault in it fails the run: it is logged."""

    run_dir: Path
    claim: Claim
    declared: Declared

    def tidied(self, outcome: Outcome, reader: ResultsReader | None) -> Outcome:
        """The outcome with all that is left in the run's folder; of a command that went well, with what is to be told.

        `reader`: of the job that has ended just now, None where there was none.
        """
        try:
            leftovers.keep(self.run_dir, self._read(outcome, reader) if reader else None)
            found = leftovers.listed(self.run_dir)
            if outcome.state is not State.SUCCEEDED:
                found += leftovers.checkpoint(self.run_dir, self.claim.attempt)
            outcome = replace(outcome, files_left=json.dumps(found) if found else "")
            is_command = outcome.points_done == 1  # of a sweep, points are counted later
            if reader and outcome.state is State.SUCCEEDED and is_command:
                lines = list(self._told(reader))
                outcome = replace(outcome, log_tail="\n".join(lines))
        except OSError:
            log.exception("What the job left could not be looked at")
        return outcome

    def _read(self, outcome: Outcome, reader: ResultsReader) -> set[Path]:
        """What need not be kept: of a job that failed nothing in its working directory, as its end was not read."""
        read, results = reader.read(), self.run_dir / "results"
        return read if outcome.state is State.SUCCEEDED else {path for path in read if path.is_relative_to(results)}

    def _told(self, reader: ResultsReader) -> Iterator[str]:
        attempt, folder = max(leftovers.folders(self.run_dir), default=(0, self.run_dir))
        found = leftovers.of_attempt(attempt, folder) if attempt == self.claim.attempt else []
        parts = [*self._said(reader, found)]
        if not parts:
            return
        printed = "" if self.declared.stdout else printed_first(self.run_dir, self.claim.attempt)
        first = f"{counted(reader.rows, 'row')}; {'; '.join(parts)}"
        say_in_log(self.run_dir, first)
        yield first
        if not reader.rows and not self.declared.none:
            lines = advice.told(folder, found, self.claim.results_table, printed)
            with (self.run_dir / "job.log").open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
            yield from lines

    def _said(self, reader: ResultsReader, found: Sequence[FileLeft]) -> Iterator[str]:
        if missing := reader.missing():
            yield f"nothing matches {some([*map(plain, missing)])} of `results: files`"
        if reader.rows and (awaited := reader.awaited()):
            yield never_came(awaited)
        if found:
            yield f"not read: {some([*map(shown, found)])}"
        elif not reader.rows and not self.declared.none and not missing:
            yield NOTHING_WRITTEN


def never_came(columns: Sequence[str]) -> str:
    """Of columns that the stack file declares."""
    return f"no row has a value of {some([*map(plain, columns)])}, declared in `results: columns`"


def shown(file: FileLeft) -> str:
    """As `plot.png (12 kB)`, or `frames/ (1,200 files, 3 MB)`."""
    several = f"{file['files']:,} files, " if file["files"] > 1 else ""
    name = file["name"] if PLAIN.fullmatch(file["name"]) else plain(file["name"])
    return f"{name} ({several}{size(file['bytes'])})"


def size(number: int) -> str:
    """As `12 bytes`, `3.4 kB`, `120 MB`."""
    if number < 1000:
        return counted(number, "byte")
    amount, units = float(number), iter(("kB", "MB", "GB", "TB"))
    unit = ""
    while amount >= 999.5 and (following := next(units, "")):
        amount, unit = amount / 1000, following
    return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:,.0f} {unit}"
