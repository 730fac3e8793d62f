"""The driver's end of a worker process: its start, what is asked and answered, its limits, how it ended."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from ems.base.errors import EmsError
from ems.node.driver.points import Returned
from ems.node.driver.position import LOADING, SETTING_UP, SIZE, Position
from ems.node.driver.ranges import Range
from ems.node.driver.worker import BOOT
from ems.spool.kinds import Kind

TICK_S = 0.1
SOURCE = str(Path(__file__).parents[3])  # ems.zip of the bundle

Reason = Literal["died", "overdue"]
_DIED: Reason = "died"


@dataclass(frozen=True)
class Limits:
    """Of each worker: its memory, the time that one call of the function may take, and that of the set-up; None: no
    limit."""

    memory_mb: int | None = None
    point_timeout_s: float | None = None
    setup_timeout_s: float | None = None


@dataclass(frozen=True)
class Death:
    """How a worker process ended that was at `point`, or in one of the phases that `position` names.

    `reason`: it died, or was ended; overdue: as that point took too long.
    """

    cause: str
    point: int
    reason: Reason = "died"


class WorkerProcess:
    """A process that computes points, until it dies. `compute` and `end` are for one thread, the rest for any."""

    def __init__(
        self, order_file: str, limits: Limits, scratch: Path, boot: str = BOOT, shared: int | None = None
    ) -> None:
        """Start it. `boot`: the script that serves; `shared`: a file, as of `SharedMemory`, if that needs one.

        EmsError if the system has no process to give.
        """
        self._limits, self._boot, self._shared = limits, boot, shared
        self._tick_s = min(TICK_S, (limits.point_timeout_s or 1.0) / 4)
        self._cause, self._reason = "", _DIED  # why it was ended, if it was
        self._late = self._seen = (LOADING, 0)
        self._spent_s = 0.0
        try:
            self._start(order_file, scratch)
        except OSError as error:
            raise EmsError(f"A worker could not be started: {error}") from error
        self._statistics = psutil.Process(self._process.pid)
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)

    def _start(self, order_file: str, scratch: Path) -> None:
        asked, requests = os.pipe()
        answers, answered = os.pipe()
        driver, self._alive = os.pipe()
        with tempfile.TemporaryFile(dir=scratch) as memory:
            memory.truncate(SIZE)
            self._position = Position(memory.fileno())
            self._position.set(LOADING)
            theirs = [asked, answered, memory.fileno(), driver, *([] if self._shared is None else [self._shared])]
            command = [sys.executable, "-c", self._boot, SOURCE, order_file, *map(str, theirs)]
            self._process = subprocess.Popen(command, pass_fds=theirs)
        for descriptor in (asked, answered, driver):
            os.close(descriptor)
        self._requests, self._answers = os.fdopen(requests, "wb"), os.fdopen(answers, "rb")

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def compute(self, ranges: Sequence[Range], known: Mapping[str, Kind]) -> Returned | Death:
        """What became of the points, or of the process. EmsError if what they need cannot be loaded or set up."""
        self._cause, self._reason = "", _DIED
        try:
            pickle.dump((ranges, known), self._requests)
            self._requests.flush()
            answer = self._answer()
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            return self._death()
        if isinstance(answer, EmsError):
            raise answer
        return answer

    def _answer(self) -> Returned | EmsError:
        """EOFError if the process ends before it has answered."""
        began = time.monotonic()
        while not self._poll.poll(1000 * self._tick_s):
            if self._process.poll() is not None and not self._poll.poll(0):
                raise EOFError  # and what it has forked holds the pipe
            now = time.monotonic()
            self._watch(now - began)
            began = now
        answer: Returned | EmsError = pickle.load(self._answers)
        return answer

    def _watch(self, elapsed_s: float) -> None:
        """End a process that exceeds a limit; time in which either could not go on does not count."""
        memory_mb, timeout_s = self._limits.memory_mb, self._limits.point_timeout_s
        self._spend(elapsed_s)
        if self._seen[0] == SETTING_UP:
            self._watch_setup()
        elif memory_mb and self._memory_bytes() > memory_mb * 10**6:
            self.kill(f"it took more than memory_mb: {memory_mb}")
        elif timeout_s and self._seen[0] >= 0 and self._spent_s > timeout_s:
            self._late = self._seen
            self.kill(f"It took longer than point_timeout_s: {timeout_s:g}; stopped.", "overdue")

    def _watch_setup(self) -> None:
        """EmsError if it exceeds a limit: it would do so again."""
        memory_mb, timeout_s = self._limits.memory_mb, self._limits.setup_timeout_s
        over = ""
        if memory_mb and self._memory_bytes() > memory_mb * 10**6:
            over = f"took more than memory_mb: {memory_mb}"
        elif timeout_s and self._spent_s > timeout_s:
            over = f"took longer than setup_timeout_s: {timeout_s:g}"
        if over:
            self.kill(over)
            raise EmsError(f"setup {over}, and was stopped. Raise that limit in the stack file.")

    def _spend(self, elapsed_s: float) -> None:
        """Note the point at work, and how much time it has had."""
        seen, before = self._position.get(), self._seen
        self._seen = seen
        if seen != before:
            self._spent_s = 0.0
        elif not self.is_stopped():
            self._spent_s += min(elapsed_s, 2 * self._tick_s)

    def _memory_bytes(self) -> int:
        """Its own: without what it shares with other workers."""
        with suppress(psutil.NoSuchProcess):  # its death is told by `compute`
            found = self._statistics.memory_info()
            shared = 0 if self._shared is None else os.fstat(self._shared).st_size
            return int(found.rss - min(shared, getattr(found, "shared", found.rss)))  # Macs do not say it
        return 0

    def is_stopped(self) -> bool:
        """Whether a signal such as SIGSTOP has stopped it."""
        with suppress(psutil.NoSuchProcess):  # its death is told by `compute`
            return bool(self._statistics.status() == psutil.STATUS_STOPPED)
        return False

    def kill(self, cause: str, reason: Reason = "died") -> None:
        """End it and what it has started; `compute` returns a Death that says why."""
        self._cause, self._reason = cause, reason
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # Macs refuse where nothing but zombies is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # also before it leads a group

    def _death(self) -> Death:
        code = self.end(0.0)
        at = self._position.get()
        if self._reason == "overdue" and at != self._late:  # it had just gone on
            self._reason = _DIED
        return Death(self._cause or _cause(code), at[0], self._reason)

    def ask_to_end(self) -> None:
        """Have it end by itself, once it has answered: what its function registered with `atexit` is run."""
        with suppress(BrokenPipeError):
            self._requests.close()

    def end(self, patience_s: float) -> int:
        """End it, after some time that it has for itself; returns its exit code, minus the signal that killed it.

        It may be called again, as by whoever waited for its answer and by whoever closes all.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self._kill()
        self.ask_to_end()
        self._answers.close()
        alive, self._alive = self._alive, -1
        if alive >= 0:
            os.close(alive)
        return self._process.wait()


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = f"signal {-code} ({signal.Signals(-code).name})"
    return f"{name}: often the machine ran out of memory" if code == -signal.SIGKILL else name
