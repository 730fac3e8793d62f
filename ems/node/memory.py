"""A run's memory, kept to its share of the machine: past that, its largest process is ended, as the system's own last
resort would end one; so the run tells of it as of any process that was killed, and other runs have theirs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress

import psutil

from ems.base.messages import Say

LOOK_S = 0.5


def keep_to(limit_gb: float, say: Say) -> None:
    """From now on, of all that this process starts, however deep. `say` hears of each process that is ended."""
    limit = int(limit_gb * 1e9)
    threading.Thread(target=_watch, args=(limit, say), name="memory", daemon=True).start()


def _watch(limit: int, say: Say) -> None:
    while True:
        time.sleep(LOOK_S)
        if victim := over(limit):
            say(f"the run took more than its {limit / 1e9:g} GB of memory: its largest process {victim.pid} was ended")
            with suppress(psutil.Error):
                victim.kill()


def over(limit: int) -> psutil.Process | None:
    """The largest of this process's descendants, if together they have more than so many bytes."""
    resident = _sizes("rss")
    if sum(resident.values()) <= limit:
        return None
    shared_once = _sizes("pss")  # dear to ask for: what several processes share counts for each in part
    return max(shared_once, key=shared_once.__getitem__) if sum(shared_once.values()) > limit else None


def _sizes(kind: str) -> Mapping[psutil.Process, int]:
    """In bytes; of processes that are ours to look at."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            about = process.memory_info() if kind == "rss" else process.memory_full_info()
            found[process] = int(getattr(about, kind, about.rss))  # Macs say no pss
    return found
