"""The driver's end of the processes that propose rounds: a new one for each, started before it is needed.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ems.base.errors import EmsError
from ems.node.driver.propose import BOOT

SOURCE = str(Path(__file__).parents[3])  # ems.zip of the bundle
DEATHS = 3  # of processes at one round, until it is an error
TICK_S = 0.05
END_S = 1.0  # from the end of a pipe to that of the process


@dataclass(frozen=True)
class Surroundings:
    """In what the processes run: those of this one, where nothing else is said. `source`: where EMS's modules are.

    `folder`: the working directory in which they start.
    """

    python: str = sys.executable
    source: str = SOURCE
    variables: Mapping[str, str] | None = None
    output: int | None = None  # a descriptor
    folder: str | None = None


SAME = Surroundings()


class Proposer:
    """Answers questions of rounds, each by a process of its own."""

    def __init__(self, order_file: str, here: Surroundings = SAME) -> None:
        """Start the first process. EmsError if the system has none to give."""
        self._started = order_file, here
        self._next: _Process | None = _Process(order_file, here)

    def answer(self, question: Path, go_on: Callable[[], bool]) -> Mapping[str, Any] | None:
        """What was proposed, as `told_of` says it, or {"error": why not}; None once `go_on` says no.

        `question`: a JSON file. A process that dies is replaced, some times: no round was recorded yet.
        """
        cause = ""
        for _ in range(DEATHS):
            asked, self._next = self._next or _Process(*self._started), None
            answer = asked.answer(question, go_on)
            code = asked.end(END_S if answer is None and go_on() else 0.0)
            if not go_on():
                return answer
            self._next = _Process(*self._started)  # which loads the code meanwhile
            if answer is not None:
                return answer
            cause = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        return {"error": f"The process that called it died, {DEATHS} times: {cause}."}

    def close(self) -> None:
        """End the process that nobody asked."""
        if self._next:
            self._next.end(0.0)


class _Process:
    def __init__(self, order_file: str, here: Surroundings) -> None:
        try:
            self._start(order_file, here)
        except OSError as error:
            raise EmsError(f"The process that proposes points could not be started: {error}") from error

    def _start(self, order_file: str, here: Surroundings) -> None:
        asked, self._questions = os.pipe()
        self._answers, answered = os.pipe()
        driver, self._alive = os.pipe()
        theirs = (asked, answered, driver)
        command = [here.python, "-c", BOOT, here.source, order_file, *map(str, theirs)]
        self._process = subprocess.Popen(
            command, pass_fds=theirs, env=here.variables, stdout=here.output, stderr=here.output, cwd=here.folder
        )
        for descriptor in theirs:
            os.close(descriptor)

    def answer(self, question: Path, go_on: Callable[[], bool]) -> Mapping[str, Any] | None:
        """None if it dies, or once `go_on` says no."""
        with suppress(BrokenPipeError):
            os.write(self._questions, f"{question}\n".encode())
        try:
            answer: Mapping[str, Any] = json.loads(self._read(go_on))
        except ValueError:  # nothing, or not all of it
            return None
        return answer

    def _read(self, go_on: Callable[[], bool]) -> bytes:
        """All that it writes before it closes the pipe; nothing if it ends otherwise."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        found: list[bytes] = []
        while go_on():
            if poll.poll(1000 * TICK_S):
                if not (part := os.read(self._answers, 1 << 20)):
                    return b"".join(found)
                found.append(part)
            elif self._process.poll() is not None:  # and what it has forked holds the pipe
                return b"".join(found)
        return b""

    def end(self, patience_s: float) -> int:
        """End it and what it has started, after some time that it has for itself.

        Returns its exit code, minus the signal that killed it.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # also before it leads a group
        for descriptor in (self._questions, self._answers, self._alive):
            os.close(descriptor)
        return self._process.wait()
