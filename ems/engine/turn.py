"""One command at a time updates a stack, and what a killed one left behind is cleared away by the next.

Pulumi's own lock of a file backend is a mere file, which outlives a killed process. Beside it each `ems` holds an flock
for all that it does to a stack, several updates maybe, so that two of them never meet between two updates.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ems.base.errors import Busy
from ems.base.messages import Say
from ems.base.private import make_folder
from ems.engine import manners
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
    make_folder(file.parent)
    with file.open("a+", encoding="utf-8", errors="replace") as opened:
        while holder := _neighbour(opened) or _clear_dead_locks(pulumi, stack):
            manners.stop_if_told()
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
    backend = pulumi.backend()
    for lock in manners.locks(backend, pulumi.lab.name, stack) if backend else ():
        holder = manners.holder(lock)
        if holder and holder.hostname not in {"", os.uname().nodename}:
            raise Busy(
                f"Stack {stack} is locked by process {holder.pid} on {holder.hostname} since {holder.since}; "
                f"this is {os.uname().nodename}.",
                f"Wait for it, or, if you are sure that it is gone: ems pulumi cancel {stack}",
            )
        if holder and (living := _living(holder, pulumi.lab.root)):
            return living
        manners.remove_lock(lock)
        manners.end_orphans(pulumi.lab.root)
    return ""


def _living(holder: manners.Holder, root: Path) -> str:
    """Who holds the lock; "" if nobody can. Whose it is, a damaged lock does not tell: any engine of the lab may be."""
    if holder.pid:
        return f"process {holder.pid} since {holder.since}" if manners.is_engine(holder.pid) else ""
    return next((f"process {pid}" for pid in manners.engines(root)), "")
