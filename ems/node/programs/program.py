"""A program that computes points: its start, its limits, its end, and that of all that it has started."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from ems.base.errors import EmsError
from ems.node.driver.worker_process import Limits
from ems.node.programs import orphans

TICK_S = 0.1
LONGEST_PAUSE_S = 0.02


class NotStarted(EmsError):
    """The program cannot be run at all."""


@dataclass(frozen=True)
class End:
    """How a program ended. `code`: its exit code, or minus the number of the signal that killed it.

    `stopped`: why EMS has ended it, if it has; `overdue`: as it took too long.
    """

    code: int
    stopped: str = ""
    overdue: bool = False

    @property
    def was_killed(self) -> bool:
        """By a signal from somewhere, or for its memory: that may be bad luck."""
        return not self.overdue and (self.code < 0 or bool(self.stopped))

    def __str__(self) -> str:
        if self.stopped:
            return self.stopped
        if self.code >= 0:
            return f"exit code {self.code}"
        name = f"killed by signal {-self.code} ({signal.Signals(-self.code).name})"
        return f"{name}: often the machine ran out of memory" if self.code == -signal.SIGKILL else name


class Program:
    """A running program, in a session of its own. For the process's main thread, which has no other children."""

    def __init__(
        self, words: Sequence[str], folder: Path, variables: Mapping[str, str], limits: Limits, **streams: int | IO[Any]
    ) -> None:
        """Start it in `folder`; `streams`: stdin, stdout and stderr, as of Popen. NotStarted if that is impossible."""
        self._limits = limits
        self.tick_s = min(TICK_S, (limits.point_timeout_s or 1.0) / 4)
        self._stopped, self._overdue, self._looked = "", False, 0.0
        try:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env=variables,
                start_new_session=True,
                preexec_fn=orphans.die_with_parent,  # noqa: PLW1509  (a worker has one thread)
                **streams,  # type: ignore[call-overload]
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise NotStarted(_not_started(words[0], folder, error)) from error
        self.begin()

    def begin(self) -> None:
        """The time of a point begins now."""
        self._began, self._spent_s = time.monotonic(), 0.0

    def wait(self) -> End:
        """Until it has ended by itself or at a limit, and nothing is left of what it has started."""
        with _Watch(self.process) as watch:
            while not watch.has_ended(self._pause_s()):
                self.check()
        return self.end()

    def _pause_s(self) -> float | None:
        """Until the limits are looked at again; None if there is none."""
        return self.tick_s if self._limits.memory_mb or self._limits.point_timeout_s else None

    def check(self) -> bool:
        """End it if it exceeds a limit; whether it did. It may be called at any time, and looks once in a tick.

        Time in which this process could not go on does not count.
        """
        now = time.monotonic()
        if self._stopped or now - self._looked < self.tick_s / 2:
            return bool(self._stopped)
        self._spent_s += min(now - max(self._looked, self._began), 2 * self.tick_s)
        self._looked = now
        memory_mb, timeout_s = self._limits.memory_mb, self._limits.point_timeout_s
        if timeout_s and self._spent_s > timeout_s:
            self._stopped, self._overdue = f"It took longer than point_timeout_s: {timeout_s:g}; stopped.", True
        elif memory_mb and _is_above(memory_mb * 10**6):
            self._stopped = f"it took more than memory_mb: {memory_mb}"
        if self._stopped:
            self.kill()
        return bool(self._stopped)

    def kill(self) -> None:
        """End it and its session."""
        with suppress(ProcessLookupError, PermissionError):  # Macs refuse where nothing but zombies is left
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> End:
        """End it if it runs, and what it has started; returns when nothing of it is left."""
        self.kill()  # while its own zombie keeps the group's number
        code = self.process.wait()
        orphans.end_all()
        return End(code if not self._stopped else -signal.SIGKILL, self._stopped, self._overdue)


class _Watch:
    """Waits for the end of a process without taking its exit code, where the system can do that."""

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self._process = process
        self._file = os.pidfd_open(process.pid) if sys.platform == "linux" else -1
        self._poll = select.poll()
        if self._file >= 0:
            self._poll.register(self._file, select.POLLIN)

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    def has_ended(self, within_s: float | None) -> bool:
        """Whether it does so within this time."""
        if self._file >= 0:
            return bool(self._poll.poll(None if within_s is None else 1000 * within_s))
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LONGEST_PAUSE_S if within_s is None else within_s)
        return self._process.returncode is not None


def _not_started(program: str, folder: Path, error: Exception) -> str:
    filename = getattr(error, "filename", None)
    why = getattr(error, "strerror", None) or str(error)
    where = f": {filename!r}" if filename not in {None, program, str(folder)} else ""
    return f"{program!r} could not be started: {why}{where}"


def _is_above(size: int) -> bool:
    """Whether all descendants together have more memory; what several of them share counts once, as far as is known."""
    found = orphans.descendants()
    return sum(map(_resident, found)) > size and sum(map(_own, found)) > size


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _own(process: psutil.Process) -> int:
    """Its part of what it shares, on Linux; elsewhere all that is resident."""
    with suppress(psutil.Error):
        if sys.platform == "linux":
            return int(process.memory_full_info().pss)
        return int(process.memory_info().rss)
    return 0
