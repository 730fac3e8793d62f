"""Slurm's commands: what is in the queue, a job submitted, jobs cancelled. Each ends within a bounded time.

The queue is asked for all jobs of the user at once, and no more often than they need: the answer is shared by all
processes of the user through a file, as login nodes are shared with many people.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from ems.base import aside, process
from ems.base.cache import cache_dir
from ems.base.errors import EmsError
from ems.base.process import CommandFailed

COMMAND_S = 30.0
LINE_S = 600.0  # how old a place in line may be: it takes a look at everybody's jobs
FIELDS = ("JobArrayID", "State", "Reason", "StartTime", "NodeList", "RestartCnt", "Name")  # a name may have a |
ENDED = frozenset(
    ["COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED"]
)
INHERITED = ("SLURM_", "SBATCH_", "SRUN_", "PMIX_", "PMI_")
KEPT = frozenset(["SLURM_CONF"])
POLL_S = 0.1
Answer = list[Any]  # as JSON has it


@dataclass(frozen=True)
class QueuedJob:
    """A job of the user that Slurm knows. `reason`: why it waits; `start`: when it may, or did, begin.

    `restarts`: how often it was taken away and queued again.
    """

    id: str
    state: str
    reason: str
    start: str
    nodes: str
    restarts: int
    name: str

    @property
    def is_held_for_maintenance(self) -> bool:
        """Whether it would reach into a maintenance that is announced."""
        return "ReqNodeNotAvail" in self.reason or self.reason == "Reservation"


def variables() -> dict[str, str]:
    """The variables of this process without those of a job that surrounds it, which would change what is submitted."""
    return {name: text for name, text in os.environ.items() if name in KEPT or not name.startswith(INHERITED)}


def run(*words: str, **own: str) -> str:
    """What a command of Slurm prints; `own`: more variables. CommandFailed if it fails, or takes over COMMAND_S."""
    return process.run(words, env={**variables(), **own}, timeout_s=COMMAND_S)


class Queue:
    """The user's jobs, asked for by one process at a time, whose answer is that of all."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or cache_dir() / "slurm" / f"queue-{_slurm()}.json"
        self._lock = threading.Lock()
        self.asked = 0  # how often this process has asked Slurm

    def jobs(self, oldest_s: float) -> tuple[float, list[QueuedJob]]:
        """When Slurm was asked (as `time.time`), and what it said: at most so long ago. CommandFailed if nothing."""
        found = self._shared(self._file, oldest_s) or self._asked(self._file, oldest_s, _jobs)
        return found[0], [QueuedJob(**job) for job in found[1]]

    def known(self) -> list[QueuedJob]:
        """What Slurm said last, maybe some minutes ago, without asking it."""
        found = self._shared(self._file, LINE_S)
        return [QueuedJob(**job) for job in found[1]] if found else []

    def place(self, job: QueuedJob) -> tuple[int, int] | None:
        """Its place in line, counted from 1, and how many wait there; None where Slurm does not say."""
        file = self._file.with_name(f"line-{self._file.name}")
        try:
            _, found = self._shared(file, LINE_S) or self._asked(file, LINE_S, _places)
        except CommandFailed:
            return None
        places: Mapping[str, tuple[int, int]] = dict(found)
        return places.get(job.id)

    def _asked(self, file: Path, oldest_s: float, ask: Callable[[], Answer]) -> tuple[float, Answer]:
        with self._lock, turn(file.with_suffix(".asking")):
            if found := self._shared(file, oldest_s):
                return found
            self.asked += 1
            began = time.time()
            said = ask()
            aside.write(file, json.dumps([began, said]), lasting=False)
            return began, said

    @staticmethod
    def _shared(file: Path, oldest_s: float) -> tuple[float, Answer] | None:
        try:
            asked_at, said = json.loads(file.read_text(encoding="utf-8"))
            return (asked_at, said) if 0 <= time.time() - asked_at <= oldest_s else None
        except (OSError, ValueError, TypeError):  # none yet, or of another version
            return None


def _slurm() -> str:
    """Which of several Slurms the commands ask."""
    return sha256(os.environ.get("SLURM_CONF", "").encode()).hexdigest()[:8]


@contextmanager
def turn(marker: Path) -> Iterator[None]:
    """One process at a time, on whichever node. A killed one is waited for as long as it may take."""
    marker.parent.mkdir(parents=True, exist_ok=True)
    give_up_at = time.monotonic() + 2 * COMMAND_S
    while not _mine(marker) and time.monotonic() < give_up_at:
        time.sleep(POLL_S)
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)


def _mine(marker: Path) -> bool:
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def _jobs() -> Answer:
    fields = ",".join(f"{name}:|" for name in FIELDS)
    lines = run("squeue", "--me", "-h", "-r", "-O", fields).splitlines()
    return [asdict(_job(line)) for line in lines if line.strip()]


def _job(line: str) -> QueuedJob:
    fields = line.strip().split("|", len(FIELDS) - 1)
    if len(fields) != len(FIELDS) or not fields[5].isdecimal():
        raise EmsError(f"squeue answered {line!r}: expected is {FIELDS}.", "Is `squeue` Slurm's own?")
    id, state, reason, start, nodes, restarts, name = fields
    return QueuedJob(id, state, reason, start, nodes, int(restarts), name.removesuffix("|"))


def _places() -> Answer:
    """Of the user's waiting jobs: number, place in the line of their partitions, and how many wait there."""
    lines = run("squeue", "-h", "-t", "PD", "-S", "-p", "-o", "%i|%P|%U").splitlines()
    waiting = [(id, set(names.split(",")), user) for id, names, user in (line.split("|") for line in lines)]
    found = []
    for n, (id, own, user) in enumerate(waiting):
        if user == str(os.getuid()):
            there = [bool(names & own) for _, names, _ in waiting]
            found.append([id, [sum(there[: n + 1]), sum(there)]])
    return found


def submit(script: Path, options: Sequence[str]) -> str:
    """The number of the job that was submitted. CommandFailed if Slurm refuses it, or does not answer in time."""
    return run("sbatch", "--parsable", *options, str(script)).strip().partition(";")[0]


def test(script: Path, options: Sequence[str]) -> None:
    """Have Slurm say whether it would take such a job, without submitting it. CommandFailed if it would not."""
    run("sbatch", "--test-only", *options, str(script))


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
        if "Invalid job id" not in error.stderr:
            raise


def ended(name: str, since: str) -> Mapping[str, str]:
    """State by number of the user's jobs of this name, by accounting; CommandFailed where that is away or off.

    `since`: a day, as 2026-01-31: without it accounting tells of today alone.
    """
    return {id: state.split()[0] for id, state in _accounted([name], since, "JobIDRaw,State")}


def core_hours(names: Sequence[str], since: datetime, until: datetime, *, ended: bool = False) -> float:
    """What the user's jobs of these names have used between these times of `clock`, by accounting.

    Requeued jobs count each time that they ran. CommandFailed where accounting is away or off, and, of jobs that have
    `ended`, where it does not know so yet.
    """
    seconds = 0.0
    found = _accounted(names, since.strftime("%Y-%m-%dT%H:%M:%S"), "Start,End,AllocCPUS,JobName")
    if ended and names[0] not in {name for *_, name in found}:
        raise CommandFailed(("sacct",), 1, "", f"accounting has not heard of {names[0]} yet")
    for start, end, cores, _ in found:
        if began := _time(start):
            if ended and not _time(end):
                raise CommandFailed(("sacct",), 1, "", "accounting has not heard of all ends yet")
            lasted = min(_time(end) or until, until) - max(began, since)
            seconds += max(0.0, lasted.total_seconds()) * int(cores)
    return seconds / 3600


def clock() -> datetime:
    """The time, in UTC, as Slurm's controller has it, or this node where that is away."""
    try:
        said = run("scontrol", "show", "config", TZ="UTC", SLURM_TIME_FORMAT="standard")
    except CommandFailed:
        return datetime.now(UTC)
    return _time(said.partition("\n")[0].rpartition(" ")[2]) or datetime.now(UTC)


def completed_hours(name: str, since: datetime) -> float:
    """How long those jobs of this name together ran that have ended since then, as Slurm noted at their ends.

    CommandFailed where it notes nothing. Which jobs is asked here, too: of a file of notes `sacct` shows all there are.
    """
    wanted = (f"--name={name}", f"--starttime={since:%Y-%m-%dT%H:%M:%S}", "-o", "JobName,Start,End")
    words = ("sacct", "-c", "-n", "-P", *wanted)
    noted = [line.rsplit("|", 2) for line in run(*words, TZ="UTC").splitlines() if line.count("|") >= 2]
    times = [(start, end) for of, start, end in noted if of == name and (_time(end) or since) >= since]
    if not times:
        raise CommandFailed(words, 1, "", "no job has ended, or Slurm notes no ends")
    most = datetime.now(UTC) - since
    lasted = (min(end - start, most) for start, end in ((_time(a), _time(b)) for a, b in times) if start and end)
    return sum((each.total_seconds() for each in lasted), 0.0) / 3600


def _accounted(names: Sequence[str], since: str, fields: str) -> list[list[str]]:
    words = ("sacct", "-n", "-P", "-X", "-D", f"--name={','.join(names)}", f"--starttime={since}", "-o", fields)
    return [line.split("|") for line in run(*words, TZ="UTC", SLURM_TIME_FORMAT="standard").splitlines() if "|" in line]


def _time(text: str) -> datetime | None:
    """None for what has not come yet; accounting is asked in UTC."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None


def has_ended(id: str) -> bool:
    """Whether this job has ended, or is forgotten, by the controller; CommandFailed if that is away."""
    try:
        said = run("scontrol", "show", "job", "--oneliner", id)
    except CommandFailed as error:
        if "Invalid job id" in error.stderr:
            return True
        raise
    found = re.search(r"\bJobState=(\w+)", said)
    return found is not None and found[1] in ENDED


def maintenance(now: datetime) -> datetime | None:
    """When the next one begins, in UTC; None where none is announced, or Slurm does not say."""
    try:
        said = run("scontrol", "show", "reservation", "--oneliner", TZ="UTC", SLURM_TIME_FORMAT="standard")
    except CommandFailed:
        return None
    found = re.findall(r"\bStartTime=(\S+).*\bFlags=\S*MAINT", said)
    return min(filter(lambda at: at > now, filter(None, map(_time, found))), default=None)
