"""Who builds an archive: one job at a time, by a folder that is renamed into its place.

The folder names the job. Neither flock nor process numbers mean anything between the nodes of a machine; Slurm knows
whether a job runs. Where there is no Slurm, it names the process, of which its own node knows whether it lives. Of a
claim whose job does not run, as after a crash or a preemption, the next one takes over. So it does where the claim's
time has long stood still, as of a node that is gone: who builds sets it anew, and that is compared, not clocks.
"""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ems.base.messages import Say
from ems.node.environments import archive

LOOK_S, ASK_S = 1.0, 10.0  # between two looks at the folder, and two questions to Slurm
SQUEUE_S = 30.0
BEAT_S, SILENT_S = 20.0, 600.0  # a file system of the net may show a beat minutes later
BUSY = frozenset(["RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"])
STARTED = 18  # of what /proc says of a process after its state
TAKEN = {errno.ENOTEMPTY, errno.EEXIST}


def job_runs(job: str) -> bool:
    """Whether Slurm says that this job runs, or does not say."""
    words = ["squeue", "-h", "-j", job, "-o", "%T"]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=SQUEUE_S)
    except (OSError, subprocess.SubprocessError):
        return True
    if done.returncode:
        return "Invalid job id" not in done.stderr
    return any(state in BUSY for state in done.stdout.split())


def builder() -> str:
    """Who asks: the number of Slurm's job, else node, number and start of this process."""
    return os.environ.get("SLURM_JOB_ID") or f"{platform.node()} {_process(str(os.getpid()))}"


def lives(holder: str) -> bool:
    """Whether a builder does, or nobody here can say."""
    node, _, process = holder.partition(" ")
    if node.isdecimal() and not process:
        return job_runs(node)
    is_elsewhere = node not in {"", platform.node()}
    return is_elsewhere or (bool(process) and _process(process.partition(" ")[0]) == process)


def _process(number: str) -> str:
    """Number and start of a process of this node; "" if it has ended, or the system does not tell."""
    try:
        state, *more = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else f"{number} {more[STARTED]}"


@contextmanager
def turn(folder: Path, say: Say, runs: Callable[[str], bool] = lives) -> Iterator[bool]:
    """Whether it is this job's turn to make `folder`; if not, another job has ended to do so meanwhile.

    `runs`: whether a job of this number does. OSError: no right to write there.
    """
    claim, job = folder.with_name(f"{folder.name}.building"), builder()
    mine = _take(claim, job)
    if not mine and not _wait(claim, job, say, runs):
        yield False
        return
    mine = mine or _take(claim, job)
    if not mine:
        yield False
        return
    with _beating(claim):
        try:
            yield True
        finally:
            _leave(claim)


@contextmanager
def _beating(claim: Path) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            with suppress(OSError):
                os.utime(claim / "job")

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _take(claim: Path, job: str) -> bool:
    """A folder with something in it cannot be replaced by a rename, on any file system."""
    own = _aside(claim)
    archive.make_shared(own)
    (own / "job").write_text(job, encoding="utf-8")
    (own / "job").chmod(archive.FILE_MODE)
    try:
        own.rename(claim)
    except OSError as error:
        archive.remove(own)
        if error.errno not in TAKEN:
            raise
        return False
    return True


def _wait(claim: Path, job: str, say: Say, runs: Callable[[str], bool]) -> bool:
    """Until the claim is given up, or taken away from a job that does not run: then True."""
    asked_at, absent, told, silence = -ASK_S, 0, False, _Silence(claim)
    while (holder := _holder(claim)) is not None:
        if time.monotonic() - asked_at >= ASK_S:
            asked_at = time.monotonic()
            absent = 0 if holder != job and runs(holder) else absent + 1
        if holder == job or absent >= 2 or silence.is_long():  # of a job that was started again, its earlier life
            say(f"{_shown(holder)} began to build it, and does not run any more")
            _leave(claim)
            return True
        if not told:
            say(f"{_shown(holder)} builds it")
            told = True
        time.sleep(LOOK_S)
    return False


class _Silence:
    """Of a claim: how long its time has not changed."""

    def __init__(self, claim: Path) -> None:
        self._claim = claim
        self._seen, self._since = 0, time.monotonic()

    def is_long(self) -> bool:
        """To be asked again and again."""
        with suppress(OSError):
            if (now := (self._claim / "job").stat().st_mtime_ns) != self._seen:
                self._seen, self._since = now, time.monotonic()
        return time.monotonic() - self._since > SILENT_S


def _holder(claim: Path) -> str | None:
    """Who has the claim; None if nobody has it, "" where a power cut has left no name."""
    try:
        return (claim / "job").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _shown(holder: str) -> str:
    node, _, process = holder.partition(" ")
    return f"process {process.partition(' ')[0]} of {node}" if process else f"job {node}".rstrip()


def _leave(claim: Path) -> None:
    old = _aside(claim)
    with suppress(FileNotFoundError):  # it was taken over
        claim.rename(old)
        archive.remove(old)


def _aside(claim: Path) -> Path:
    return claim.with_name(f"{claim.name}.{uuid.uuid4().hex}")
