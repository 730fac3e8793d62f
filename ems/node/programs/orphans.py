"""Processes that outlive what started them: found, and ended.

On Linux a process may adopt the orphans among its descendants (`strays.adopt`), and a child ask to be killed with its
parent. Elsewhere the job's keeper ends what is left, once the driver has ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress

import psutil

from ems.base.errors import EmsError

PATIENCE_S = 10.0
_PAUSE_S = 0.002
_SET_PDEATHSIG = 1
_LIBRARY = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """To be called in a new child, before it runs its program."""
    if _LIBRARY:
        _LIBRARY.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def end_all() -> None:
    """End all descendants of this process, and return when none is left; its children must all be orphans or to die.

    Quick where there is none. EmsError if one does not die.
    """
    give_up_at = time.monotonic() + PATIENCE_S
    while _has_children():
        _kill(descendants())
        if time.monotonic() > give_up_at:
            raise EmsError("Processes that a program has started do not end.", "Look for them with: ps -ef")
        time.sleep(_PAUSE_S)


def _has_children() -> bool:
    """Whether there are any that live; those that ended are forgotten."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def end_others(spared: Collection[int]) -> None:
    """End the children of this process but for those of these numbers, with all their descendants."""
    orphans = [child for child in psutil.Process().children() if child.pid not in spared]
    for orphan in orphans:
        with suppress(psutil.NoSuchProcess):
            _kill([orphan, *orphan.children(recursive=True)])
    for orphan in orphans:
        with suppress(ChildProcessError):
            os.waitpid(orphan.pid, 0)


def descendants() -> list[psutil.Process]:
    """Of this process."""
    return psutil.Process().children(recursive=True)


def _kill(processes: Collection[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
