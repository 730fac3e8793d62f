"""The job that leads a run: submitted once, found again, replaced when it is gone.

What is known of it is in `head.json` in the run's folder: a submission is noted before it is made, so that whoever
comes after a crash looks for the job's name in the queue, and in accounting, before anything is submitted again.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ems.base import aside
from ems.base.errors import EmsError, UserError
from ems.base.process import CommandFailed
from ems.clusters.slurm import queue
from ems.clusters.slurm.queue import ENDED, Queue, QueuedJob

FIRST_LOOK_S, LATER_LOOK_S, FIRST_S = 2.0, 30.0, 60.0  # how old an answer may be: in the first minute, and later
LISTED_S = 5.0  # after which a job that was submitted stands in the queue
UNANSWERED_S = 60.0  # in which a submission that Slurm did not answer may still arrive
MOST_SUBMITTED = 5  # jobs that ended without a result, until a person has to look


@dataclass(frozen=True)
class Submission:
    """The `number`-th head of a run. `id`: "" as long as Slurm has not answered. `at`: time.time of it."""

    number: int
    at: float
    id: str = ""


def job_name(experiment_id: str) -> str:
    """Of the head: one job of this name runs at a time."""
    return f"ems-{experiment_id}"


class Head:
    """The head of one run, as this process knows it."""

    def __init__(self, run_dir: Path, experiment_id: str, jobs: Queue) -> None:
        self._dir, self.name, self._jobs = run_dir, job_name(experiment_id), jobs
        self._began, self._absent, self._looked_at = time.monotonic(), 0, 0.0
        self._said = ""
        self.submitted = 0  # by this process: as of a laptop's agents, the next command has as many tries again

    def job(self) -> QueuedJob | None:
        """Its job, if Slurm has one. CommandFailed if Slurm does not answer."""
        early = time.monotonic() - self._began < FIRST_S
        asked_at, jobs = self._jobs.jobs(FIRST_LOOK_S if early else LATER_LOOK_S)
        mine = [job for job in jobs if job.name == self.name and job.state not in ENDED]
        self._absent = 0 if mine else self._absent + (asked_at > self._looked_at)
        self._looked_at = asked_at
        return mine[0] if mine else None

    def is_gone(self) -> bool:
        """Whether what was submitted has ended for sure, so that another may be submitted."""
        last = self.last()
        if last is None or (self._dir / f"head-{last.id}.ended").exists():
            return True
        if time.time() - last.at < (LISTED_S if last.id else UNANSWERED_S) or self._absent < 2:
            return False
        try:
            states = queue.ended(self.name, _day_before(last.at))
        except CommandFailed:  # accounting is off, or away: the queue alone has to do
            return self._absent >= 3
        return all(state in ENDED for state in states.values())

    def submit(self, script: Path, options: list[str]) -> None:
        """Submit it once more. UserError if Slurm refuses it."""
        number = 1 + (last.number if (last := self.last()) else 0)
        self._note(Submission(number, time.time()))
        try:
            id = queue.submit(script, [f"--comment={self.comment(number)}", *options])
        except CommandFailed as error:
            if error.code == 124:
                return  # it may have been submitted: that is looked for before it is repeated
            self._forget(last)
            raise refused(error) from error
        self._note(Submission(number, time.time(), id))
        self._absent = 0
        self.submitted += 1

    def comment(self, number: int) -> str:
        """By which people tell the submissions of one run apart."""
        return f"ems:{self.name.removeprefix('ems-')}:{number}"

    def news(self, said: str) -> str:
        """What is new to people."""
        fresh, self._said = (said if said != self._said else ""), said
        return fresh

    def last(self) -> Submission | None:
        """The newest submission; None if there was none."""
        try:
            return Submission(**json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _note(self, submission: Submission) -> None:
        aside.write(self._file, json.dumps(asdict(submission)))

    def _forget(self, before: Submission | None) -> None:
        if before:
            self._note(before)
        else:
            self._file.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        return self._dir / "head.json"


def refused(error: CommandFailed) -> EmsError:
    """What people should read where Slurm refuses a job."""
    if error.code == 127:
        return UserError("There is no `sbatch` here.", "Run EMS where Slurm's commands are, as on a login node.")
    return UserError(f"Slurm refuses the job: {error.stderr.strip()}", "Look at the settings of the place: ems check")


def told(job: QueuedJob) -> str:
    """What people should hear of a job that waits, or runs."""
    if job.state != "PENDING":
        return f"Slurm's job {job.id} is {job.state.lower()}" + (f" on {job.nodes}" if job.nodes else "")
    if "ReqNodeNotAvail" in job.reason or "Reservation" in job.reason:
        return f"Slurm's job {job.id} waits for a maintenance ({job.reason}): fewer `hours` may let it start before"
    if job.reason.startswith(("JobHeldUser", "JobHeldAdmin")):
        return f"Slurm's job {job.id} is held ({job.reason}): release it with: scontrol release {job.id}"
    start = f", expected to start at {job.start}" if job.start not in {"N/A", ""} else ""
    return f"Slurm's job {job.id} waits in the queue ({job.reason}){start}"


def _day_before(at: float) -> str:
    return (datetime.fromtimestamp(at, UTC) - timedelta(days=1)).strftime("%Y-%m-%d")
