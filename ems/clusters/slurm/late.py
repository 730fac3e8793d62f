"""What runs cost that ended while accounting was away: learned later, from a note in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from ems.base import aside
from ems.base.process import CommandFailed
from ems.clusters.slurm import queue
from ems.lab import Lab


@dataclass(frozen=True)
class Due:
    """A run that was charged without accounting. `since`, `until`: ISO 8601, of the controller's clock."""

    attempt: int
    price: float  # of a core-hour, in US dollars
    names: tuple[str, ...]  # of its jobs, the head's first
    since: str
    until: str


def note(run_dir: Path, due: Due) -> None:
    """Have `settle` find it."""
    aside.write(run_dir / f"cost-{due.attempt}.json", json.dumps(asdict(due)))


def settle(lab: Lab) -> None:
    """Correct the charges of this lab's runs by accounting, as far as that knows of them by now."""
    for file, due in _all(lab):
        since, until = map(datetime.fromisoformat, (due.since, due.until))
        try:
            usd = due.price * queue.core_hours(due.names, since, until, ended=True)
        except CommandFailed:  # it is away, or has not heard of all yet
            continue
        with lab.database() as database:
            database.recharge(file.parent.name, due.attempt, usd, "accounting")
        file.rename(file.with_suffix(".settled"))


def _all(lab: Lab) -> Iterator[tuple[Path, Due]]:
    for file in sorted((lab.work_dir / "runs").glob("*/cost-*.json")):
        with suppress(OSError, ValueError, TypeError, LookupError):  # damaged: its charge stays as it is
            said = json.loads(file.read_text(encoding="utf-8"))
            yield file, Due(**{**said, "names": tuple(said["names"])})
