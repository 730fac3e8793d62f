"""Rows of 12 and of 1,000 doubles a second that the SQLite database stores, against the driver's own keyed inserts.

python benchmarks/sqlite_rows.py [ROWS]
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from array import array
from contextlib import closing
from itertools import repeat
from pathlib import Path

from ems.databases import Claim, Database, Experimenter, Funding, Project, Registration, connect
from ems.spool.batch import Batch, Column

BATCH_ROWS = {12: 10_000, 1000: 500}  # by the number of doubles in a row
ROUNDS = 3


def batches(rows: int, doubles: int) -> list[Batch]:
    size = BATCH_ROWS[doubles]
    values = [array("d", (k + i / 7 for i in range(size))) for k in range(doubles)]
    columns = tuple(Column(f"x{k}", "float64", values[k]) for k in range(doubles))
    zeros = array("q", bytes(8 * size))
    ranges = [range(start, start + size) for start in range(0, rows, size)]
    return [Batch(array("q", points), zeros, columns, replaces=tuple(points)) for points in ranges]


def raw(file: Path, work: list[Batch]) -> float:
    """Seconds for the same rows by `executemany` into a rowid table with the same primary key."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        names = [column.name for column in work[0].columns]
        doubles = ", ".join(f"{name} REAL" for name in names)
        keys = "experiment_id TEXT NOT NULL, point INTEGER NOT NULL, row INTEGER NOT NULL"
        connection.execute(f"CREATE TABLE t ({keys}, {doubles}, PRIMARY KEY (experiment_id, point, row))")
        sql = f"INSERT INTO t VALUES ({', '.join('?' * (len(names) + 3))})"
        start = time.perf_counter()
        for batch in work:
            connection.execute("BEGIN IMMEDIATE")
            columns = [column.values for column in batch.columns]
            connection.executemany(sql, zip(repeat("e" * 36), batch.points, batch.rows, *columns, strict=False))
            connection.execute("COMMIT")
        return time.perf_counter() - start


def claimed(database: Database) -> Claim:
    """A running experiment in a new database."""
    database.create()
    for record in (Experimenter("researcher", "R"), Project("study", "S"), Funding("grant", "A")):
        database.upsert(record)
    names = {name: name for name in ("digest", "repository", "commit", "tree", "stack_file_commit")}
    place = {"environment": "e", "environment_digest": "d", "python": "3.11", "cluster": "laptop"}
    money = {"experimenter": "researcher", "project": "study", "funding": "grant"}
    database.register(
        Registration(id="e" * 36, stack="s", results_table="rows", points_total=1, spec="{}", **names, **place, **money)
    )
    claim = database.claim("e" * 36, agent="benchmark", lease_s=3600)
    assert claim is not None
    return claim


def stored(folder: Path, work: list[Batch]) -> float:
    with closing(connect("sqlite:///ems.db", folder)) as database:
        claim = claimed(database)
        start = time.perf_counter()
        for batch in work:
            database.store(claim, batch)
        return time.perf_counter() - start


def compare(rows: int, doubles: int) -> None:
    work = batches(rows, doubles)
    ratios = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            raw_s, store_s = raw(Path(folder) / "raw.db", work), stored(Path(folder), work)
        ratios.append(raw_s / store_s)
        sys.stdout.write(f"raw {rows / raw_s:,.0f} rows/s, store() {rows / store_s:,.0f} rows/s: {ratios[-1]:.2f}\n")
    sys.stdout.write(f"{doubles} doubles: ratio, middle of {ROUNDS}: {sorted(ratios)[ROUNDS // 2]:.2f} (aim: 0.70)\n")


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    compare(wanted, 12)
    compare(wanted // 50, 1000)
