"""Points a second of a sweep on two workers, stored in SQLite through the spool, against Dask with a task per point
and against bare loops that call the same function in as many processes and keep nothing.

python benchmarks/sweep_rate.py [POINTS]

The rates are from the first stored point to the last; the start of the workers is told apart. `dear`: points of half
a second of numpy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from distributed import Client, LocalCluster

import ems
from benchmarks.sqlite_rows import claimed
from ems.databases import connect
from ems.spool import folder as spool
from ems.spool.folder import Spool

WORKERS = 2
DEAR = 60
CODE = """
import time

def returns_dict(n):
    return {"x": n * 0.5, "y": n / 7, "k": n, "label": "a"}

def returns_frame(n):
    import pandas
    return pandas.DataFrame({"x": [n * 0.5], "y": [n / 7], "k": [n]})

def returns_text_frame(n):
    import pandas
    return pandas.DataFrame([returns_dict(n)])

def returns_vector(n):
    import numpy
    return {"v": numpy.arange(1000) * 0.5 + n}

def dear(n):
    import numpy
    matrix = numpy.random.default_rng(n).normal(size=(100, 100))
    for _ in range(1100):
        largest = numpy.linalg.svd(matrix, compute_uv=False)[0]
    return {"largest": largest}
"""


@dataclass(frozen=True)
class Measured:
    first_s: float  # from the start to the first stored point
    all_s: float  # to the last
    points: int

    @property
    def rate(self) -> float:
        return (self.points - 1) / (self.all_s - self.first_s)


def swept(folder: Path, function: str, points: int) -> Measured:
    """The driver, and beside it a loop that stores what it spools, as the agent does."""
    (folder / "jobs.py").write_text(CODE)
    (folder / "done").write_bytes(b"")
    places = {"spool": str(folder / "spool"), "done": str(folder / "done"), "progress": str(folder / "progress.json")}
    grids = [{"n": {"range": [0, points - 1, 1]}}]
    order = {"function": f"jobs:{function}", "grids": grids, "code": str(folder), "workers": WORKERS, "threads": 1}
    (folder / "order.json").write_text(json.dumps({**order, **places}))
    call = f"from ems.node.driver.driver import main; main({str(folder / 'order.json')!r})"
    waiting = Spool(folder / "spool")
    variables = {**os.environ, "PYTHONPATH": str(Path(ems.__file__).parents[1])}
    with closing(connect("sqlite:///ems.db", folder)) as database:
        claim = claimed(database)
        began, first_s = time.perf_counter(), 0.0
        driver = subprocess.Popen([sys.executable, "-c", call], env=variables)
        while driver.poll() is None or waiting.waiting():
            for path in waiting.waiting():
                database.store(claim, spool.read(path))
                path.unlink()
                last_s = time.perf_counter() - began
                first_s = first_s or last_s
            time.sleep(0.01)
        row = database.experiment("e" * 36)
        assert row is not None
        assert row.rows_stored == points
    return Measured(first_s, last_s, points)


def raw(folder: Path, points: int) -> float:
    """Points a second of Dask with a task per point, nothing stored."""
    (folder / "jobs.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    from jobs import returns_dict  # type: ignore[import-not-found]

    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.submit(returns_dict, -1).result()
        began = time.perf_counter()
        results = client.gather(client.map(returns_dict, range(points), pure=False))
        seconds = time.perf_counter() - began
    assert len(results) == points
    return points / seconds


def bare(folder: Path, function: str, points: int) -> float:
    """Points a second of loops without anything about them, one process per worker."""
    (folder / "jobs.py").write_text(CODE)
    began = f"import time, jobs; jobs.{function}(0); began = time.perf_counter()"
    loop = f"{began}\nfor n in range({points // WORKERS}): jobs.{function}(n)\nprint(time.perf_counter() - began)"
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", loop]
    processes = [subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE) for _ in range(WORKERS)]
    return points / max(float(process.communicate()[0]) for process in processes)


def show(function: str, points: int, alone: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        best = bare(Path(folder), function, points)
        measured = swept(Path(folder), function, points)
    sys.stdout.write(
        f"{function:18} {points:9,} points: first stored after {measured.first_s:.1f} s, then {measured.rate:,.0f} "
        f"points/s: {measured.rate / alone:,.1f} times Dask, {measured.rate / best:.1%} of {best:,.0f} in bare loops\n"
    )


def main(points: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        alone = raw(Path(folder), max(2000, points // 100))
    sys.stdout.write(f"Dask, a task per point, nothing stored: {alone:,.0f} points/s\n")
    for function, share in (("dict", 1), ("frame", 4), ("text_frame", 4), ("vector", 40)):
        show(f"returns_{function}", points // share, alone)
    show("dear", DEAR, alone)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000)
