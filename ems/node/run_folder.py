"""A run's folder, looked at from outside: its log, how it does, the last words of its agents; and what is left of it.

Standard library alone, as it is asked also where nothing else is installed.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from ems.base import aside
from ems.databases import State
from ems.node.agent import leftovers, noted
from ems.node.job import checkpoints

FRESH_S = 15.0  # what a driver wrote longer ago says nothing of now
LOG_BYTES = 65_536
ERROR = re.compile(r"(?: ERROR \S+: |^(?=[\w.]+(?:Error|Exception): ))(.+)")


def release(run_dir: Path) -> None:
    """Of a run that nobody is at work on: remove the staged inputs and the unpacked code; what jobs left stays.

    So do log, results files and spool, and a checkpoint, unless an agent was killed as it was about to remove it.
    """
    leftovers.keep(run_dir)
    ended = noted.read(run_dir)
    if ended and ended.outcome.state is State.SUCCEEDED:
        checkpoints.forget(run_dir)
    aside.remove(run_dir / "inputs")
    aside.remove(run_dir / "code")


def last_words(run_dir: Path) -> str:
    """The last error that the agents of this folder wrote: a message, or the end of a traceback."""
    tail = log_of(run_dir / "agent.log", -LOG_BYTES) or b""
    for line in reversed(tail.decode("utf-8", errors="replace").splitlines()):
        if found := ERROR.search(line):
            return found[1]
    return "it said nothing"


def log(run_dir: Path, start: int) -> bytes | None:
    """A piece of what the job wrote, from byte `start` on, counted from the end if it is negative; None without one."""
    return log_of(run_dir / "job.log", start)


def log_of(file: Path, start: int) -> bytes | None:
    """The same of any file."""
    if not file.exists():
        return None
    with file.open("rb") as opened:
        opened.seek(start if start >= 0 else max(0, file.stat().st_size + start))
        return opened.read(LOG_BYTES)


def progress(run_dir: Path) -> tuple[float, int] | None:
    """Points a second and workers, as the driver of a sweep writes them about once a second; None: nothing of now."""
    file = run_dir / "progress.json"
    try:
        if time.time() - file.stat().st_mtime > FRESH_S:
            return None
        driver = json.loads(file.read_text(encoding="utf-8"))
        return driver["rate"], driver["workers"]
    except (OSError, ValueError, LookupError, TypeError):  # none yet, or damaged: the next one comes in a second
        return None
