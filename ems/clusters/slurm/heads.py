"""The job that leads a run: submitted once, found again, replaced when it is gone.

What is known of it is in `head.json` in the run's folder: a submission is noted before it is made, so that whoever
comes after a crash looks for the job's name in the queue, and in accounting, before anything is submitted again.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ems.base import aside
from ems.base.errors import EmsError, UserError
from ems.base.process import CommandFailed
from ems.clusters.slurm import queue
from ems.clusters.slurm.queue import ENDED, Queue, QueuedJob
from ems.databases import Experiment
from ems.lab.line import duration
from ems.node.agent.agent import GOES_ON

FIRST_LOOK_S, LATER_LOOK_S, FIRST_S = 2.0, 30.0, 60.0  # how old an answer may be: in the first minute, and later
LISTED_S = 5.0  # after which a job that was submitted stands in the queue
UNANSWERED_S = 60.0  # in which a submission that Slurm did not answer may still arrive
UNANSWERED_LOOKS = 3  # at the queue, that do not see it
FULL = re.compile(r"Max(Submit)?Job|MaxSubmit|job submit limit", re.IGNORECASE)  # of what the user may queue
AWAY = re.compile(r"timed out|temporarily|Unable to contact|Zero Bytes|Connection refused", re.IGNORECASE)
TOLD_S = 600.0  # after which people hear once more of a job that waits
LONG = timedelta(minutes=1)  # in the queue, which is worth telling
LEAST_MINUTES = 5  # of a job: a shorter one before a maintenance is not worth asking for
TOO_SLOW, NOT_FOUND = 124, 127  # exit codes, as of `ems.base.process`
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
        self._told: tuple[str, float] | None = None
        self.submitted = 0  # by this process: as of a laptop's agents, the next command has as many tries again

    def job(self) -> QueuedJob | None:
        """Its job, if Slurm has one. CommandFailed if Slurm does not answer."""
        asked_at, jobs = self._jobs.jobs(FIRST_LOOK_S if self.is_early else LATER_LOOK_S)
        mine = [job for job in jobs if job.name == self.name and job.state not in ENDED]
        self._absent = 0 if mine else self._absent + (asked_at > self._looked_at)
        self._looked_at = asked_at
        return mine[0] if mine else None

    def is_gone(self) -> bool:
        """Whether what was submitted has ended for sure, so that another may be submitted.

        Its own note says so, or two looks at the queue and accounting; where that is away, the controller.
        """
        last = self.last()
        if last is None or self._ended_file(last).exists():
            return True
        if time.time() - last.at < (LISTED_S if last.id else UNANSWERED_S) or self._absent < 2:
            return False
        try:
            states = queue.ended(self.name, _day_before(last.at))
        except CommandFailed:
            states = {}
        if states:
            return all(state in ENDED for state in states.values())
        return self._is_unknown(last)

    def was_to_go_on(self) -> bool:
        """Whether the last one came to its time limit, and could not be queued again as the same job."""
        last = self.last()
        try:
            return last is not None and self._ended_file(last).read_text().strip() == str(GOES_ON)
        except OSError:
            return False

    def _ended_file(self, last: Submission) -> Path:
        return self._dir / f"head-{last.id}.ended"

    def _is_unknown(self, last: Submission) -> bool:
        """Of a job that accounting says nothing of."""
        if not last.id:
            return self._absent >= UNANSWERED_LOOKS
        try:
            return queue.has_ended(last.id)
        except CommandFailed:
            return False

    def submit(self, script: Path, options: list[str]) -> str:
        """Submit it once more; returns why that has to wait, if it has. UserError if Slurm refuses it."""
        number = 1 + (last.number if (last := self.last()) else 0)
        self._note(Submission(number, time.time()))
        try:
            id = queue.submit(script, [f"--comment={self.comment(number)}", *options])
        except CommandFailed as error:
            if is_unanswered(error):
                return "Slurm did not answer: whether it has the job is looked for before it is submitted again"
            self._forget(last)
            if waits := why_later(error):
                return waits
            raise refused(error) from error
        self._note(Submission(number, time.time(), id))
        self._absent = 0
        self.submitted += 1
        return ""

    def comment(self, number: int) -> str:
        """By which people tell the submissions of one run apart."""
        return f"ems:{self.name.removeprefix('ems-')}:{number}"

    def news(self, key: str, said: Callable[[], str]) -> str:
        """What is new to people: once for each `key`, and of one that stays now and then."""
        told, now = self._told, time.monotonic()
        if told and told[0] == key and now - told[1] < TOLD_S:
            return ""
        self._told = key, now
        return said()

    @property
    def is_early(self) -> bool:
        """Whether this process has just begun to look."""
        return time.monotonic() - self._began < FIRST_S

    def last(self) -> Submission | None:
        """The newest submission; None if there was none."""
        try:
            return Submission(**json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def waited(self, experiment: Experiment) -> timedelta:
        """For how long the newest one has been in the queue, since it was submitted or the run before it ended."""
        last, ended = self.last(), experiment.heartbeat_at
        since = max(last.at if last else time.time(), ended.timestamp() if ended else 0.0)
        return timedelta(seconds=max(0.0, time.time() - since))

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


def is_unanswered(error: CommandFailed) -> bool:
    """Whether a submission may have arrived, though `sbatch` failed."""
    return error.code == TOO_SLOW or "timed out" in error.stderr


def why_later(error: CommandFailed) -> str:
    """Why Slurm does not take a job now, though it may later; "" where it refuses it for good."""
    if FULL.search(error.stderr):
        return f"Slurm takes no more jobs of yours for now ({_last_line(error)}); this one waits for others to end"
    return f"Slurm does not answer, trying on: {_last_line(error)}" if AWAY.search(error.stderr) else ""


def _last_line(error: CommandFailed) -> str:
    return (error.stderr.strip().splitlines() or [error.message])[-1]


def refused(error: CommandFailed, what: str = "the job") -> EmsError:
    """What people should read where Slurm refuses a job."""
    if error.code == NOT_FOUND:
        return UserError("There is no `sbatch` here.", "Run EMS where Slurm's commands are, as on a login node.")
    hint = "Correct `cluster:` of the stack file, or that of its place; what Slurm has: sinfo, sacctmgr show assoc"
    return UserError(f"Slurm refuses {what}: {error.stderr.strip()}", hint)


def told(
    job: QueuedJob,
    place: tuple[int, int] | None = None,
    maintenance_at: datetime | None = None,
    waited: timedelta = timedelta(),
) -> str:
    """What people should hear of a job that waits, or runs.

    `place` in line; `maintenance_at`: when the next begins; `waited`: since when it has been in the queue this time.
    """
    if job.state != "PENDING":
        return f"Slurm's job {job.id} is {job.state.lower()}" + (f" on {job.nodes}" if job.nodes else "")
    if is_held_for_maintenance(job):
        return f"Slurm's job {job.id} is held for maintenance ({job.reason}){_way_before(job, maintenance_at)}"
    if job.reason.startswith("JobHeld"):
        return f"Slurm's job {job.id} is held ({job.reason}): release it with: scontrol release {job.id}"
    so_far = f" for {duration(waited)}" if waited >= LONG else ""
    line = f", {place[0]:,} of {place[1]:,} in line" if place else ""
    start = f", expected to start at {job.start}" if job.start not in {"N/A", ""} else ""
    return f"Slurm's job {job.id} is queued{so_far} ({job.reason}){line}{start}"


def is_held_for_maintenance(job: QueuedJob) -> bool:
    """Whether it would reach into a maintenance that is announced."""
    return "ReqNodeNotAvail" in job.reason or job.reason == "Reservation"


def _way_before(job: QueuedJob, maintenance_at: datetime | None) -> str:
    minutes = math.floor((maintenance_at - datetime.now(UTC)) / timedelta(minutes=1)) if maintenance_at else 0
    if minutes < LEAST_MINUTES:
        return f", expected to start at {job.start}"
    hours = math.floor(minutes / 6) / 10 or minutes / 60
    now = f"scontrol update jobid={job.id} timelimit={math.floor(60 * hours)}"
    return f": ask for {hours:.2g} h or less (`hours`, of the head `head.hours`); of this job: {now}"


def _day_before(at: float) -> str:
    return (datetime.fromtimestamp(at, UTC) - timedelta(days=1)).strftime("%Y-%m-%d")
