"""What a run's points cost: `measured.json` in the run's folder. Standard library alone, Python 3.9 or newer."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Annotated, TypedDict

from ems.base import aside

FILE = "measured.json"
STATUS = Path("/proc/self/status")

log = logging.getLogger("ems.driver")


class Measured(TypedDict):
    """What the points of a sweep cost in its newest run."""

    points: Annotated[int, "How many points the run computed; those that failed count, too."]
    worker_s: Annotated[float, "Seconds that its workers were at work on them, all workers together."]
    took_s: Annotated[float, "Seconds from the start of the workers to the last point."]
    workers: Annotated[int, "How many workers there were at once, at most."]
    memory_mb: Annotated[
        float, "The most memory that one worker had, or a program that it ran and that has ended, in MB (10^6 bytes)."
    ]


class Measure:
    """Adds up what batches cost."""

    def __init__(self, file: Path) -> None:
        self._file, self._began = file, time.monotonic()
        self._sum: Measured = {"points": 0, "worker_s": 0.0, "took_s": 0.0, "workers": 0, "memory_mb": 0.0}

    def add(self, points: int, seconds: float, memory_mb: float, workers: int) -> None:
        """A batch, the most memory that its worker had by then, and how many workers there are now."""
        self._sum["points"] += points
        self._sum["worker_s"] += seconds
        self._sum["workers"] = max(self._sum["workers"], workers)
        self._sum["memory_mb"] = max(self._sum["memory_mb"], memory_mb)
        self._sum["took_s"] = time.monotonic() - self._began

    def write(self) -> None:
        """A file that cannot be written is logged."""
        try:
            aside.write(self._file, json.dumps(self._sum), lasting=False)
        except OSError as error:
            log.warning("%s: what the points cost is not written.", error)


def peak_mb() -> float:
    """The most memory that this process has had, or one that it started and that has ended, in MB."""
    return max(_own_mb(), _in_mb(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))


def _own_mb() -> float:
    if STATUS.exists():  # Linux gives a new process the peak of the one that started it, but for here
        for line in STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return _in_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _in_mb(peak: int) -> float:
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
