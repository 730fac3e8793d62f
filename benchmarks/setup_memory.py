"""What workers of a sweep spend on an array that its `setup` makes: shared, and made by each, over none at all.

Pages that several processes map count for each in proportion (PSS), so the sum is what the machine spends. Linux alone;
half a minute: python benchmarks/setup_memory.py [MB [WORKERS]]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

CODE = """
import time
import numpy

def none():
    return None

def shared():
    return numpy.ones({numbers})

def own():
    return numpy.ones({numbers}), print

def f(n, context):
    array = context[0] if isinstance(context, tuple) else context
    time.sleep(0.01)
    return {{"x": n if array is None else float(array.sum())}}
"""
BOOT = "import sys; from ems.node.driver.driver import main; main(sys.argv[1])"


def main(megabytes: int = 500, workers: int = 2) -> None:
    before = spent_mb("none", megabytes, workers)
    print(f"{workers} workers without an array: {before:,.0f} MB")
    for setup in ("shared", "own"):
        more = spent_mb(setup, megabytes, workers) - before
        print(f"{megabytes} MB, {setup}: {more:,.0f} MB more")


def spent_mb(setup: str, megabytes: int, workers: int) -> float:
    """Of all workers, once each has computed points."""
    with tempfile.TemporaryDirectory() as folder:
        process = started(Path(folder), setup, megabytes, workers)
        try:
            while len(list(Path(folder).glob("spool/*.batch"))) < 20 * workers:
                assert process.poll() is None
                time.sleep(0.1)
            found = psutil.Process(process.pid).children(recursive=True)
            return sum(worker.memory_full_info().pss for worker in found) / 1e6
        finally:
            process.terminate()
            process.wait()


def started(folder: Path, setup: str, megabytes: int, workers: int) -> subprocess.Popen[bytes]:
    (folder / "code").mkdir()
    (folder / "code/jobs.py").write_text(CODE.format(numbers=megabytes * 10**6 // 8))
    (folder / "done").touch()
    files = {name: str(folder / name) for name in ("code", "spool", "done", "progress")}
    grids = [{"n": {"range": [1, 100_000, 1]}}]
    order = {"function": "jobs:f", "setup": f"jobs:{setup}", "grids": grids, **files, "workers": workers, "threads": 1}
    (folder / "order.json").write_text(json.dumps(order))
    return subprocess.Popen([sys.executable, "-c", BOOT, str(folder / "order.json")], stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
