"""The `pulumi` program, set up for one lab, and what it leaves behind when it is interrupted.

It is run, not linked: on the user's terminal its display, its Ctrl-C and its exit code are Pulumi's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from ems import engine
from ems.engine import Progress, quiet
from ems.errors import Busy, EngineError
from ems.lab import Lab
from ems.process import CommandFailed, run


@dataclass(frozen=True)
class Pulumi:
    """The `pulumi` program, set up for one lab."""

    lab: Lab
    folder: Path

    @classmethod
    def of(cls, lab: Lab, progress: Progress = quiet) -> Pulumi:
        return cls(lab, engine.ensure(progress))

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {**engine.environment(self.folder, self.lab.root), **extra}

    def quietly(self, *arguments: str, **extra: str) -> str:
        """Standard output; CommandFailed with both streams."""
        return run([self.folder / "pulumi", *arguments], cwd=self.lab.root, env=self.environment(extra))

    def attached(self, *arguments: str, **extra: str) -> int:
        """Run on this process's terminal, hand signals on, and return the exit code."""
        command = [str(self.folder / "pulumi"), *arguments]
        with subprocess.Popen(command, cwd=self.lab.root, env=self.environment(extra)) as child, _handing_on(child):
            return child.wait()


@contextmanager
def _handing_on(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C in a terminal reaches the child by itself; a signal to us alone is passed to it."""

    def forward(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM or not _in_foreground():
            child.send_signal(signal.SIGINT)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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


def make_ready(pulumi: Pulumi, stack: str) -> None:
    """The stack exists, no dead process holds its lock, and no interrupted creation of ours is left in its state."""
    clear_dead_locks(pulumi, stack)
    deployment = export(pulumi, stack)
    if deployment is None:
        pulumi.quietly("stack", "init", "--no-select", "--stack", stack)
    elif deployment.get("pending_operations"):
        pulumi.quietly("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", stack)


def export(pulumi: Pulumi, stack: str) -> dict[str, Any] | None:
    """The deployment in the stack's state; None if there is no such stack yet."""
    try:
        exported = json.loads(pulumi.quietly("stack", "export", "--stack", stack))
    except CommandFailed as error:
        if "no stack named" in error.message:
            return None
        raise EngineError(f"The state of stack {stack} cannot be read: {error.message}") from error
    return exported.get("deployment") or {}


def clear_dead_locks(pulumi: Pulumi, stack: str) -> None:
    """Remove locks whose process, on this machine, is gone. Busy if a living one holds the stack."""
    backend = pulumi.environment({}).get("PULUMI_BACKEND_URL", "")
    if not backend.startswith("file://"):
        return
    folder = Path(backend.removeprefix("file://")).expanduser() / ".pulumi" / "locks"
    for lock in folder.glob(f"organization/{pulumi.lab.name}/{stack}/*.json"):
        holder = json.loads(lock.read_text())
        if holder["hostname"] != os.uname().nodename or _lives(holder):
            raise Busy(
                f"Stack {stack} is being updated by process {holder['pid']} on {holder['hostname']} "
                f"since {holder['timestamp']}.",
                f"Watch it with `ems status {stack}`, or stop its run with `ems stop {stack}`.",
            )
        lock.unlink(missing_ok=True)


def _lives(holder: Mapping[str, Any]) -> bool:
    """Whether the process that took the lock is there, and not a younger one that got its number."""
    try:
        born = psutil.Process(holder["pid"]).create_time()
    except psutil.NoSuchProcess:
        return False
    return born <= datetime.fromisoformat(holder["timestamp"]).timestamp() + 1
