"""Points in the SQLite database: read to resume a half-done run, counted while rows are written, copied for reuse.

python benchmarks/sqlite_points.py [POINTS]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ems.databases import Claim, Database, Experimenter, Funding, Project, Registration, connect
from ems.spool.batch import Batch, Column

BATCH_POINTS = 10_000
LEASE_S = 3600.0


def ready(folder: Path) -> Database:
    database = connect("sqlite:///ems.db", folder)
    database.create()
    for record in (Experimenter("researcher", "R"), Project("study", "S"), Funding("grant", "A")):
        database.upsert(record)
    return database


def claimed(database: Database, id: str) -> Claim:
    names = {name: name for name in ("digest", "spec", "repository", "commit", "tree", "stack_file_commit")}
    place = {"environment": "e", "environment_digest": "d", "python": "3.11", "cluster": "laptop"}
    money = {"experimenter": "researcher", "project": "study", "funding": "grant"}
    database.register(Registration(id=id, stack="s", results_table="rows", points_total=1, **names, **place, **money))
    claim = database.claim(id, agent="benchmark", lease_s=LEASE_S)
    assert claim is not None
    return claim


def batch(points: Sequence[int]) -> Batch:
    columns = (Column(f"x{k}", "float64", array("d", (k + i / 7 for i in points))) for k in range(12))
    return Batch(array("q", points), array("q", bytes(8 * len(points))), tuple(columns), replaces=tuple(points))


def store(database: Database, claim: Claim, first: int, last: int, step: int = 1) -> None:
    for start in range(first, last, BATCH_POINTS * step):
        points = range(start, min(start + BATCH_POINTS * step, last), step)
        database.store(claim, batch(points))
        database.beat(claim, LEASE_S, points_done=points[-1] // step)


def resume(database: Database, name: str, id: str, grid: int) -> None:
    """What an agent does that goes on with a run: a byte per point of the grid, set where nothing is left to do."""
    begin = time.perf_counter()
    done = bytearray(grid)
    for _, points in database.points(id):
        done[points.start : points.stop] = b"\1" * len(points)
    took_s = time.perf_counter() - begin
    sys.stdout.write(f"resume, {name}: {done.count(1):,} stored points read in {took_s:.2f} s\n")


def progress(database: Database, claim: Claim, last: int) -> None:
    """The slowest look at an experiment's counters while its rows go on being written."""
    writing = threading.Thread(target=store, args=(database, claim, last, last + 20 * BATCH_POINTS))
    writing.start()
    looks = list(watch(database, claim.experiment_id, writing))
    sys.stdout.write(f"progress: {len(looks)} looks while writing, the slowest {max(looks):.3f} s (aim: 0.2 s)\n")


def watch(database: Database, id: str, writing: threading.Thread) -> Iterator[float]:
    while writing.is_alive():
        begin = time.perf_counter()
        database.experiment(id)
        yield time.perf_counter() - begin
        time.sleep(0.02)


def copy(database: Database, points: int) -> None:
    claim = claimed(database, "copy")
    begin = time.perf_counter()
    copied = database.copy_points(claim, "whole", ((n, 2 * n) for n in range(points)))
    took_s = time.perf_counter() - begin
    sys.stdout.write(f"copy: {copied:,} points in {took_s:.1f} s, {copied / took_s:,.0f} a second\n")


def main(points: int) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(ready(Path(folder))) as database:
        whole, gaps = claimed(database, "whole"), claimed(database, "gaps")
        store(database, whole, 0, points)
        store(database, gaps, 0, 2 * points, step=2)
        resume(database, "without gaps", "whole", 2 * points)
        resume(database, "every second point", "gaps", 2 * points)
        progress(database, whole, points)
        copy(database, points // 5)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_500_000)
