"""One command at a time updates a stack, and what a killed one left behind is cleared away by the next.

Pulumi's own lock of a file backend is a mere file, which outlives a killed process. Beside it each `ems` holds an flock
for all that it does to a stack, several updates maybe, so that two of them never meet between two updates.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import psutil

from ems.base.errors import Busy
from ems.base.messages import Say
from ems.engine.runner import Pulumi


def refuse(holder: str) -> None:
    """The `waiting` of a command that does not wait."""
    raise Busy(f"{holder}.", "Watch its run with `ems status`, or stop it with `ems stop`; then repeat the command.")


@contextmanager
def turn(pulumi: Pulumi, stack: str, waiting: Say = refuse) -> Iterator[None]:
    """Be the only one of this machine who updates the stack; locks of dead processes are cleared.

    While somebody else is at work, `waiting` is called again and again with a sentence that says who; it sleeps or
    raises. Busy if the somebody is on another machine, where nobody can know whether they live.
    """
    file = pulumi.lab.work_dir / "locks" / f"{stack}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="utf-8") as opened:
        while holder := _neighbour(opened) or _clear_dead_locks(pulumi, stack):
            waiting(f"Stack {stack} is being updated by {holder}")
        yield


def _neighbour(file: TextIO) -> str:
    """Another `ems` of this lab that has its turn; "" if the turn is ours."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read() or "another `ems`"
    file.truncate(0)
    file.write(f"process {os.getpid()}")
    file.flush()
    return ""


def _clear_dead_locks(pulumi: Pulumi, stack: str) -> str:
    """Remove Pulumi's locks whose process is gone; "" if none is left, else who holds one."""
    for lock in _locks(pulumi, stack):
        holder = _read(lock)
        if holder and holder["hostname"] != os.uname().nodename:
            raise Busy(
                f"Stack {stack} is locked by process {holder['pid']} on {holder['hostname']} "
                f"since {holder['timestamp']}; this is {os.uname().nodename}.",
                f"Wait for it, or, if you are sure that it is gone: ems pulumi cancel {stack}",
            )
        if holder and _lives(holder["pid"]):
            return f"process {holder['pid']} since {holder['timestamp']}"
        lock.unlink(missing_ok=True)
        _end_orphans(pulumi.lab.root)
    return ""


def _locks(pulumi: Pulumi, stack: str) -> list[Path]:
    """Pulumi's lock files; none where the backend is not a folder."""
    backend = pulumi.environment({}).get("PULUMI_BACKEND_URL", "")
    if not backend.startswith("file://"):
        return []
    folder = Path(backend.removeprefix("file://")).expanduser() / ".pulumi" / "locks"
    return sorted(folder.glob(f"organization/{pulumi.lab.name}/{stack}/*.json"))


def _read(lock: Path) -> dict[str, Any] | None:
    """None if the lock was released meanwhile."""
    with contextlib.suppress(FileNotFoundError):  # its holder has just ended
        return dict(json.loads(lock.read_text()))
    return None


def _lives(pid: int) -> bool:
    """Whether that is a living Pulumi. Not by its age: the clock may have been set since it began."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "pulumi" in process.name()
    except psutil.NoSuchProcess:
        return False


def _end_orphans(root: Path) -> None:
    """Language hosts of engines that were killed: by themselves they notice it after minutes."""
    for process in psutil.process_iter(["name", "cmdline"]):
        host = process.info["name"].startswith("pulumi-language") and f"-root={root}" in (process.info["cmdline"] or ())
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
            if host and not _lives(process.ppid()):
                process.kill()
