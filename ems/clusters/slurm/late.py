"""What runs cost that ended while accounting was away: learned later, from a note in the run's folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from ems.base import aside
from ems.base.process import CommandFailed
from ems.clusters.slurm import queue

ASKED_S = 60.0  # for so long accounting is asked: what is left is asked another time


@dataclass(frozen=True)
class Due:
    """A run that was charged without accounting. `since`, `until`: ISO 8601, of the controller's clock."""

    attempt: int
    price: float  # of a core-hour, in US dollars
    names: tuple[str, ...]  # of its jobs, the head's first
    since: str
    until: str


def note(run_dir: Path, due: Due) -> None:
    """Have `known` find it."""
    aside.write(run_dir / f"cost-{due.attempt}.json", json.dumps(asdict(due)))


def known(runs: Path) -> Iterator[tuple[Path, Due, float]]:
    """Notes in the run folders below `runs` of which accounting knows by now, with the cost in US dollars."""
    give_up_at = time.monotonic() + ASKED_S
    for file, due in _all(runs):
        if time.monotonic() > give_up_at:
            return
        since, until = map(datetime.fromisoformat, (due.since, due.until))
        with suppress(CommandFailed):  # it is away, or has not heard of all yet
            yield file, due, due.price * queue.core_hours(due.names, since, until, ended=True)


def settle(file: Path) -> None:
    """This note has been heard: its charge is corrected."""
    if file.exists():
        file.rename(file.with_suffix(".settled"))


def _all(runs: Path) -> Iterator[tuple[Path, Due]]:
    for file in sorted(runs.glob("*/cost-*.json")):
        with suppress(OSError, ValueError, TypeError, LookupError):  # damaged: its charge stays as it is
            said = json.loads(file.read_text(encoding="utf-8"))
            yield file, Due(**{**said, "names": tuple(said["names"])})
