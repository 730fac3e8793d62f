"""A lab as it is after years: stacks with many experiments each, all finished but the last few, written in bulk.

python benchmarks/old_lab.py URL [STACKS] [EXPERIMENTS] [ROWS]
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ems.databases import Database, Experimenter, Funding, Project, Registration, State, connect
from ems.databases.states import columns_of
from ems.spool.batch import Batch, Column

BEGAN = datetime(2023, 9, 1, tzinfo=UTC)
APART, TOOK = timedelta(minutes=30), timedelta(minutes=20)
SPEC_BYTES, LOG_BYTES, PLATFORM_BYTES = 2_000, 4_000, 1_500  # as those of real experiments
ROWS_TOGETHER = 50_000
COLUMNS = ("loss", "theta", "sigma", "seconds")


def fill(database: Database, stacks: int, experiments: int, rows: int = 0, running: int = 0) -> None:
    """Make the tables, and fill them: `rows` over all experiments alike; of the newest ones, `running` are running.

    The n-th experiment is the next one of stack n modulo `stacks`, which then releases its one before.
    """
    database.create()
    for record in (
        Experimenter("researcher", "A Researcher"),
        Project("study", "A study"),
        Funding("grant", "An agency"),
    ):
        database.upsert(record)
    each = rows // experiments
    alive = range(experiments - running, experiments)
    database.put_rows("experiment", (_experiment(n, stacks, experiments, each, alive) for n in range(experiments)))
    database.put_rows("run", (_run(n, alive) for n in range(experiments)))
    database.put_rows("charge", (_charge(n) for n in range(experiments) if n not in alive))
    if each:
        batch, together = _batch(each), max(1, ROWS_TOGETHER // each)
        for first in range(0, experiments, together):
            database.put_results([(id_of(n), batch) for n in range(first, min(first + together, experiments))])


def id_of(n: int) -> str:
    """The id of the n-th experiment."""
    return f"{n:032x}"


def stack_of(n: int, stacks: int) -> str:
    """The stack of the n-th experiment."""
    return f"stack{n % stacks:04}"


def _experiment(n: int, stacks: int, experiments: int, rows: int, alive: range) -> dict[str, Any]:
    registered, is_alive = BEGAN + n * APART, n in alive
    same = {"experimenter": "researcher", "project": "study", "funding": "grant", "cluster": "laptop"}
    code = {"commit": "c" * 40, "tree": f"{n:040x}", "stack_file_commit": "s" * 40, "repository": ""}
    built = {"environment": "base", "environment_digest": "e" * 64, "python": "3.11", "results_table": "results"}
    spec = f'{{"name": "{"x" * SPEC_BYTES}"}}'
    registration = Registration(
        id=id_of(n), stack=stack_of(n, stacks), digest=f"{n:064x}", spec=spec, points_total=100, **same, **code, **built
    )
    return columns_of(registration) | {
        "state": State.RUNNING if is_alive else State.SUCCEEDED,
        "attempt": 1,
        "wanted_attempt": 1,
        "points_done": 50 if is_alive else 100,
        "points_failed": 0,
        "rows_stored": rows,
        "machines": int(is_alive),
        "cost_usd": 0.0,
        "used_s": 0.0,
        "cancel_requested": False,
        "registered_at": registered,
        "deadline_at": None,
        "started_at": registered,
        "finished_at": None if is_alive else registered + TOOK,
        "destroyed_at": registered + APART if n + stacks < experiments else None,
        "error": "",
        "files_left": "",
        "log_tail": "" if is_alive else "a line of a log\n" * (LOG_BYTES // 16),
    }


def _run(n: int, alive: range) -> dict[str, Any]:
    began, is_alive = BEGAN + n * APART, n in alive
    ended = began + TOOK
    return {
        "experiment_id": id_of(n),
        "attempt": 1,
        "agent": "somebody@laptop",
        "state": State.RUNNING if is_alive else State.SUCCEEDED,
        "claimed_at": began,
        "heartbeat_at": ended,
        "lease_until": datetime(9000, 1, 1, tzinfo=UTC) if is_alive else ended,
        "finished_at": None if is_alive else ended,
        "exit_code": None if is_alive else 0,
        "error": "",
        "platform": f'{{"cpu": "{"x" * PLATFORM_BYTES}"}}',
    }


def _charge(n: int) -> dict[str, Any]:
    hours, ended = TOOK / timedelta(hours=1), BEGAN + n * APART + TOOK
    cost = {"funding": "grant", "hours": hours, "usd": 0.0, "basis": ""}
    return {"experiment_id": id_of(n), "attempt": 1, **cost, "at": ended}


def _batch(rows: int) -> Batch:
    columns = tuple(Column(name, "float64", array("d", _values(rows, k))) for k, name in enumerate(COLUMNS))
    return Batch(array("q", range(rows)), array("q", bytes(8 * rows)), columns)


def _values(rows: int, column: int) -> Iterator[float]:
    return (column + row / 7 for row in range(rows))


if __name__ == "__main__":
    url, *counts = sys.argv[1:]
    asked = [int(count) for count in counts] + [1_000, 50_000, 0][len(counts) :]
    with closing(connect(url, Path())) as made:
        fill(made, *asked)
