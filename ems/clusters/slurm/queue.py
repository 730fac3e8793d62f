"""Slurm's commands: what is in the queue, a job submitted, jobs cancelled. Each ends within a bounded time.

The queue is asked for all jobs of the user at once, and no more often than they need: the answer is shared by all
processes of the user through a file, as login nodes are shared with many people.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ems.base import aside, process
from ems.base.cache import cache_dir
from ems.base.errors import EmsError
from ems.base.process import CommandFailed

COMMAND_S = 30.0
FIELDS = "%i|%j|%T|%r|%S|%M|%N|%k"
ENDED = frozenset(
    ["COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED"]
)
INHERITED = ("SLURM_", "SBATCH_", "SRUN_", "PMIX_", "PMI_")
KEPT = frozenset(["SLURM_CONF"])


@dataclass(frozen=True)
class QueuedJob:
    """A job of the user that Slurm knows. `reason`: why it waits; `start`: when it may, or did, begin."""

    id: str
    name: str
    state: str
    reason: str
    start: str
    used: str
    nodes: str
    comment: str


def variables() -> dict[str, str]:
    """The variables of this process without those of a job that surrounds it, which would change what is submitted."""
    return {name: text for name, text in os.environ.items() if name in KEPT or not name.startswith(INHERITED)}


def run(*words: str, **own: str) -> str:
    """What a command of Slurm prints; `own`: more variables. CommandFailed if it fails, or takes over COMMAND_S."""
    return process.run(words, env={**variables(), **own}, timeout_s=COMMAND_S)


class Queue:
    """The user's jobs, asked for at most every `pause_s` by all processes together."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or cache_dir() / "slurm" / "queue.json"
        self.asked = 0  # how often this process has asked Slurm

    def jobs(self, oldest_s: float) -> tuple[float, list[QueuedJob]]:
        """When Slurm was asked (as `time.time`), and what it said: at most so long ago. CommandFailed if nothing."""
        if found := self._shared(oldest_s):
            return found
        self.asked += 1
        began = time.time()
        jobs = [_job(line) for line in run("squeue", "--me", "-h", "-r", "-o", FIELDS).splitlines() if line.strip()]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        aside.write(self._file, json.dumps({"asked_at": began, "jobs": [asdict(job) for job in jobs]}))
        return began, jobs

    def _shared(self, oldest_s: float) -> tuple[float, list[QueuedJob]] | None:
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
            if not 0 <= time.time() - known["asked_at"] <= oldest_s:
                return None
            return known["asked_at"], [QueuedJob(**job) for job in known["jobs"]]
        except (OSError, ValueError, LookupError, TypeError):  # none yet, or of another version
            return None


def _job(line: str) -> QueuedJob:
    fields = line.split("|", 7)
    if len(fields) != 8:
        raise EmsError(f"squeue answered {line!r}: expected is {FIELDS}.", "Is `squeue` Slurm's own?")
    return QueuedJob(*fields)


def submit(script: Path, options: Sequence[str]) -> str:
    """The number of the job that was submitted. CommandFailed if Slurm refuses it, or does not answer in time."""
    return run("sbatch", "--parsable", *options, str(script)).strip().partition(";")[0]


def cancel(names: Sequence[str] = (), ids: Sequence[str] = ()) -> None:
    """Cancel the user's jobs of these names and numbers; such as are not there are not an error."""
    for name in names:
        _cancelled("--me", f"--name={name}")
    if ids:
        _cancelled(*ids)


def _cancelled(*words: str) -> None:
    try:
        run("scancel", "--full", *words)
    except CommandFailed as error:
        if error.code == 127:
            raise
        if "Invalid job id" not in error.stderr:
            raise


def ended(name: str, since: str) -> Mapping[str, str]:
    """State by number of the user's jobs of this name, by accounting; CommandFailed where that is away or off.

    `since`: a day, as 2026-01-31: without it accounting tells of today alone.
    """
    return {id: state.split()[0] for id, state in _accounted([name], since, "JobIDRaw,State")}


def core_hours(names: Sequence[str], since: datetime) -> float:
    """What the user's jobs of these names have used since then, by accounting, those that still run included.

    Requeued jobs count each time that they ran. CommandFailed where accounting is away or off.
    """
    seconds = 0.0
    for start, end, cores in _accounted(names, since.strftime("%Y-%m-%dT%H:%M:%S"), "Start,End,AllocCPUS"):
        if began := _time(start):
            lasted = (_time(end) or datetime.now(UTC)) - max(began, since)
            seconds += max(0.0, lasted.total_seconds()) * int(cores)
    return seconds / 3600


def _accounted(names: Sequence[str], since: str, fields: str) -> list[list[str]]:
    words = ("sacct", "-n", "-P", "-X", "-D", f"--name={','.join(names)}", f"--starttime={since}", "-o", fields)
    return [line.split("|") for line in run(*words, TZ="UTC", SLURM_TIME_FORMAT="standard").splitlines() if "|" in line]


def _time(text: str) -> datetime | None:
    """None for what has not come yet; accounting is asked in UTC."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None
