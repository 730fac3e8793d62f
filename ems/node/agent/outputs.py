"""What the job of a run leaves in EMS_OUTPUT_DIR: its folder, and the way into the lab's store until all is there.

Each attempt of a command begins with the folder as it is: what an interrupted one left is still in it. When a job has
ended, well or not, its files are stored, and the folder is empty.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ems import stores
from ems.base import aside
from ems.base.messages import counted, plain
from ems.databases import Claim, Database, Outcome, State
from ems.node.agent import leftovers
from ems.node.agent.config import AgentConfig
from ems.node.agent.job_log import say_in_log
from ems.node.agent.porter import Porter
from ems.node.agent.taken import Found, Taken
from ems.node.job.carried import NOTED
from ems.node.job.outputs import FOLDER, OPEN, READY, REPLACED, TAKEN, VARIABLE, OutputFolder

POLL_S = 0.1
FLUSH_S = 5.0  # for an agent that was told to stop
GIVE_UP_S = 60.0  # without anything stored, of a run that is to end: what is left stays on this machine
JOB = "job"  # the folder of a command
RUN = "run"  # the file with the number of the run that it is of
MOST_TOLD = 20

log = logging.getLogger(__name__)


class Outputs:
    """Of the run that holds `claim`, in its folder."""

    def __init__(self, run_dir: Path, config: AgentConfig, claim: Claim, connect: Callable[[], Database]) -> None:
        self._dir, self._attempt, self.folder = run_dir, claim.attempt, run_dir / FOLDER
        self._taken = Taken(self.folder)
        self._left = 0
        self._porter = Porter(
            self._taken,
            claim,
            lambda: stores.connect(config.store, Path(config.root)),
            connect,
            self._leave,
            lambda line: say_in_log(run_dir, line),
        )

    def start(self) -> None:
        """Carry what is ready, from now on."""
        self._porter.start()

    @property
    def variables(self) -> dict[str, str]:
        """By which a command finds its folder."""
        return {VARIABLE: str(self.folder / OPEN / JOB)}

    def begin(self) -> None:
        """A command is to start. OSError: no room, no right."""
        OutputFolder(self.folder, JOB)
        (self.folder / RUN).write_text(str(self._attempt), encoding="utf-8")

    def begin_points(self) -> None:
        """The workers of a sweep are to start; what others had begun, and did not end, does not count."""
        aside.remove(self.folder / OPEN)

    def take_over(self, before: int) -> None:
        """What a command left here that the run `before` had is this run's; else others came since: it counts no more.

        It is kept then. A run may have nothing to do but to store what it has taken over.
        """
        file = self.folder / RUN
        of = file.read_text(encoding="utf-8") if file.exists() else ""
        if of == str(before):
            aside.write(file, str(self._attempt))
        elif self.folder.is_dir():
            self._move(self.folder, leftovers.of_run(self._dir, self._attempt) / VARIABLE)

    def end_job(self) -> None:
        """The job has ended: what it left is complete. OSError: no room, no right."""
        if (self.folder / OPEN / JOB).is_dir():
            OutputFolder(self.folder, JOB).close(0)

    def stop(self) -> None:
        """Of a run that will go on: the next one stores what is left."""
        self._porter.stop()
        self._porter.join(FLUSH_S)

    def settle(self, outcome: Outcome, halted: Callable[[], Outcome | None]) -> Outcome | None:
        """Once all is stored, the outcome as it is then. None if the run must stop before: the next one goes on.

        `halted`: whether there is a reason to end. Then the store is not waited for without end: what it does not take
        is left on this machine, and the outcome says so.
        """
        self._porter.finish()
        while self._porter.is_alive():
            self._porter.join(POLL_S)
            reason = halted()
            if reason and reason.state is State.LOST:
                self._porter.join(FLUSH_S)
                break
            if reason and time.monotonic() - self._porter.progressed > GIVE_UP_S:
                return self._given_up(outcome, reason)
        if not self._porter.is_done:
            self.stop()
            return None
        self._tidy()
        return self._listed(outcome)

    def _tidy(self) -> None:
        """Remove what is empty, and what no point has ended that was begun."""
        if not (self.folder / OPEN / JOB).exists():
            aside.remove(self.folder / OPEN)
        (self.folder / RUN).unlink(missing_ok=True)
        for folder in (*(self.folder / name for name in (READY, TAKEN, NOTED, REPLACED)), self.folder):
            with suppress(OSError):
                folder.rmdir()

    def _given_up(self, outcome: Outcome, reason: Outcome) -> Outcome:
        self.stop()
        for chunk in self._taken.chunks(MOST_TOLD):
            for found in chunk:
                self._leave(found, "the store did not take it")
        error = f"{counted(self._left, 'file')} of EMS_OUTPUT_DIR could not be stored: {self._porter.trouble}"
        ended = outcome if outcome.state is not State.SUCCEEDED else replace(reason, exit_code=outcome.exit_code)
        return self._listed(replace(ended, error=f"{ended.error} {error}".strip()))

    def _listed(self, outcome: Outcome) -> Outcome:
        """With what had to be left here."""
        found = leftovers.listed(self._dir) if self._left else []
        return replace(outcome, files_left=json.dumps(found)) if found else outcome

    def _leave(self, found: Found, problem: str) -> None:
        """Keep what no store will have with all that is left unread, and say so."""
        where = self._dir / leftovers.FOLDER / f"{leftovers.ATTEMPT}{self._attempt}" / VARIABLE
        self._move(found.path, where / found.folder.name / found.path.relative_to(found.folder))
        self._left += 1
        if self._left <= MOST_TOLD:
            say_in_log(self._dir, f"not stored: {plain(found.name)} of point {found.point}, as {problem}")
        log.warning("Not stored: %r: %s", str(found.path), problem)

    def _move(self, path: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.remove(target)
        shutil.move(path, target)
