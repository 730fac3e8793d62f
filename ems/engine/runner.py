"""The `pulumi` program, set up for one lab.

It is run, not linked: on the user's terminal its display, its Ctrl-C and its exit code are Pulumi's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ems.base.errors import EngineError
from ems.base.messages import Say, quiet
from ems.base.process import CommandFailed
from ems.engine import install as engine
from ems.engine.stack_text import keeping_text
from ems.lab import Lab

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Pulumi:
    """The `pulumi` program, set up for one lab."""

    lab: Lab
    folder: Path
    display: int | None = None  # file descriptor for what `attached` shows; None: standard output

    @classmethod
    def of(cls, lab: Lab, say: Say = quiet, display: int | None = None) -> Pulumi:
        """The `pulumi` of `lab`, fetched or built if there is none.

        EngineError if that fails; UserError as of `Lab.require`.
        """
        lab.require()
        return cls(lab, engine.ensure(say), display)

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """The environment variables that `pulumi` runs with: this process's, what the engine needs, and `extra`."""
        return {**engine.environment(self.folder, self.lab.root), **extra}

    def quietly(self, *arguments: str, **extra: str) -> str:
        """Standard output; CommandFailed with both streams. An interruption is handed on, as `attached` does."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self._started(arguments, extra, **pipes, text=True, errors="replace") as child, _handing_on(child):
            stdout, stderr = child.communicate()
        if child.returncode:
            raise CommandFailed(["pulumi", *arguments], child.returncode, stdout, stderr)
        return str(stdout)

    def attached(self, *arguments: str, **extra: str) -> int:
        """Run on this process's terminal and return the exit code.

        Pulumi is let end in order after a Ctrl-C or SIGTERM; then KeyboardInterrupt.
        """
        with self._started(arguments, extra, stdout=self.display) as child, _handing_on(child):
            return child.wait()

    def _started(self, arguments: Sequence[str], extra: Mapping[str, str], **how: Any) -> subprocess.Popen[Any]:
        command = [str(self.folder / "pulumi"), *arguments]
        # Unless a terminal's Ctrl-C is to reach it: a signal to our whole group, which `_handing_on` hands on, is its
        # second one then, and at the second one Pulumi ends at once, not in order.
        group = None if _in_foreground() else 0
        return subprocess.Popen(command, cwd=self.lab.root, env=self.environment(extra), process_group=group, **how)


@contextmanager
def _handing_on(child: subprocess.Popen[Any]) -> Iterator[None]:
    """Hand signals on to the child; after its end, take them as they were meant.

    Ctrl-C in a terminal reaches the child by itself; a signal to us alone is passed to it. A closed terminal ends both.
    """
    if threading.current_thread() is not threading.main_thread():  # no other may have handlers
        yield
        return
    heard: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        if number == signal.SIGHUP:
            child.send_signal(signal.SIGHUP)
        elif number == signal.SIGTERM or not _in_foreground():
            child.send_signal(signal.SIGINT)

    ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
    previous = {number: signal.signal(number, forward) for number in ours}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if signal.SIGHUP in heard:
        signal.raise_signal(signal.SIGHUP)
    if heard:
        raise KeyboardInterrupt


def _in_foreground() -> bool:
    """Whether a terminal sends its Ctrl-C to this process's group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def make_ready(
    pulumi: Pulumi, stack: str, is_gone: Callable[[Mapping[str, Any]], bool] = lambda _resource: False
) -> None:
    """The stack exists, and its state has no interrupted creation and no resource whose row is gone.

    `is_gone` says so of a resource of the state, as after the database was lost or restored: the next update makes such
    rows again. To be called in one's `turn`. EngineError if the state cannot be read; CommandFailed if Pulumi fails.
    """
    deployment = export(pulumi, stack)
    if deployment is None:
        _init(pulumi, stack)
    elif deployment.get("pending_operations") or any(map(is_gone, deployment.get("resources") or ())):
        pulumi.quietly("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", stack)


def _init(pulumi: Pulumi, stack: str) -> None:
    with keeping_text(pulumi.lab.stack_file(stack)):
        _init_anew(pulumi, stack)


def _init_anew(pulumi: Pulumi, stack: str) -> None:
    try:
        pulumi.quietly("stack", "init", "--no-select", "--stack", stack)
    except CommandFailed as error:
        if "already exists" not in error.message:  # made meanwhile by a command whose `ems` was killed
            raise


def stacks(pulumi: Pulumi) -> list[str]:
    """Names of the stacks that Pulumi's backend has a state of, also those without a file in the working tree."""
    listed = json.loads(pulumi.quietly("stack", "ls", "--json"))
    return sorted(str(stack["name"]).rpartition("/")[2] for stack in listed)


def export(pulumi: Pulumi, stack: str) -> dict[str, Any] | None:
    """The deployment in the stack's state; None if there is no such stack yet, EngineError if it cannot be read."""
    try:
        exported = json.loads(pulumi.quietly("stack", "export", "--stack", stack))
    except CommandFailed as error:
        if "no stack named" in error.message:
            return None
        raise EngineError(f"The state of stack {stack} cannot be read: {error.message}") from error
    return exported.get("deployment") or {}
