"""The job that leads a run: submitted once, found again, replaced when it is gone.

What is known of it is in `head.json` in the run's folder: a submission is noted before it is made, so that whoever
comes after a crash looks for the job's name in the queue, and in accounting, before anything is submitted again.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ems.base import aside
from ems.base.errors import EmsError, UserError
from ems.base.process import CommandFailed
from ems.clusters.slurm import queue
from ems.clusters.slurm.queue import ENDED, Queue, QueuedJob, turn
from ems.node.agent.endings import GOES_ON

FIRST_LOOK_S, LATER_LOOK_S, FIRST_S = 2.0, 30.0, 60.0  # how old an answer may be: in the first minute, and later
LISTED_S = 5.0  # after which a job that was submitted stands in the queue
UNANSWERED_S = 60.0  # in which a submission that Slurm did not answer may still arrive
UNANSWERED_LOOKS = 3  # at the queue, that do not see it
FULL = re.compile(r"Max(Submit)?Job|MaxSubmit|job submit limit", re.IGNORECASE)  # of what the user may queue
AWAY = re.compile(r"timed out|temporarily|Unable to contact|Zero Bytes|Connection refused", re.IGNORECASE)
TOO_SLOW, NOT_FOUND = 124, 127  # exit codes, as of `ems.base.process`
WORKERS = "workers.json"  # in the run's folder: how the workers stand


@dataclass(frozen=True)
class Submission:
    """The `number`-th head of a run. `id`: "" as long as Slurm has not answered. `at`: time.time of it."""

    number: int
    at: float
    id: str = ""


@dataclass(frozen=True)
class Seen:
    """What a command knows of a head from its looks before: `absent` from so many in a row, the last of a queue that
    was `asked_at` (time.time); for how long the command has looked, in seconds."""

    absent: int = 0
    asked_at: float = 0.0
    lasted_s: float = 0.0


def job_name(experiment_id: str) -> str:
    """Of the head: one job of this name runs at a time."""
    return f"ems-{experiment_id}"


def crew_name(experiment_id: str) -> str:
    """Of the jobs of a run's workers."""
    return f"ems-{experiment_id}-workers"


class Head:
    """The head of one run, as a command knows it."""

    def __init__(self, run_dir: Path, experiment_id: str, jobs: Queue, seen: Seen = Seen()) -> None:
        self._dir, self.name, self._jobs = run_dir, job_name(experiment_id), jobs
        self._began, self._absent, self._looked_at = time.monotonic() - seen.lasted_s, seen.absent, seen.asked_at

    @property
    def seen(self) -> Seen:
        """For the next look, maybe of another process."""
        return Seen(self._absent, self._looked_at, time.monotonic() - self._began)

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

    def submit(self, script: Path, options: list[str], after: int) -> str:
        """Submit it once more; returns why that has to wait, if it has. UserError if Slurm refuses it.

        `after`: the number of the newest submission that the decision knew of, 0 without one. A newer one is another
        command's, or that of a question that was repeated: nothing is submitted beside it.
        """
        with turn(self._dir / "head.submitting"):
            last = self.last()
            number = 1 + (last.number if last else 0)
            if number != after + 1:
                return ""
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
        return ""

    def comment(self, number: int) -> str:
        """By which people tell the submissions of one run apart."""
        return f"ems:{self.name.removeprefix('ems-')}:{number}"

    @property
    def is_early(self) -> bool:
        """Whether the command has just begun to look."""
        return time.monotonic() - self._began < FIRST_S

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
        return UserError(
            "There is no `sbatch` here.",
            "Run EMS where Slurm's commands are, as on a login node, or name one as `host`.",
        )
    hint = "Correct `cluster:` of the stack file, or that of its place; what Slurm has: sinfo, sacctmgr show assoc"
    return UserError(f"Slurm refuses {what}: {error.stderr.strip()}", hint)


def _day_before(at: float) -> str:
    return (datetime.fromtimestamp(at, UTC) - timedelta(days=1)).strftime("%Y-%m-%d")


def workers(run_dir: Path) -> str:
    """Of the workers of a run, how many are queued, why, and how many were taken away, as was noted last."""
    try:
        told = json.loads((run_dir / WORKERS).read_text(encoding="utf-8"))
        queued = f"{told['queued']:,} queued ({told['reason']})" if told["queued"] else ""
        preempted = f"{told['preempted']:,} preempted so far" if told["preempted"] else ""
    except (OSError, ValueError, LookupError, TypeError):  # none yet, or of another version
        return ""
    return " · ".join(filter(None, [queued, preempted]))
