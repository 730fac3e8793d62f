"""What the sweep driver computes, keeps and leaves: with real workers, run as the agent runs it."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed.comm import connect

from ems.spool.batch import Mark
from ems.sweep import Sweep
from tests.node.driving import CODE, Start, eventually, exactly_once, numbers, start, zipped
from tests.processes import PATIENCE_S, matching

__all__ = ["start", "zipped"]


def test_rows_are_those_of_a_serial_loop(start: Start) -> None:
    grid = {**numbers(40), "rate": [0.1, 0.25]}
    run = start("mixed", grid)
    assert run.wait() == 0, run.log
    assert exactly_once(run, 80)
    space: dict[str, Any] = {}
    exec(CODE, space)
    rows, marks, sweep = run.rows(), run.marks(), Sweep.of([grid])
    for point in range(80):
        parameters = sweep.parameters(point)
        n, rate = parameters["n"], parameters["rate"]
        own = [row for (at, _), row in sorted(rows.items()) if at == point]
        assert all((row["n"], row["rate"]) == (n, rate) for row in own)
        if n % 5 == 0:
            assert marks[point] == Mark(point, "empty", parameters)
            assert own == []
        elif n % 5 == 1:
            assert [(row["x"], row["k"]) for row in own] == [(n * rate, k) for k in range(3)]
        elif n % 5 == 2:
            assert [(row["k"], row["t"]) for row in own] == [(n, "a"), (2**60, None)]
            assert own[0]["x"] == n * rate
            assert math.isnan(own[1]["x"])
        elif n % 5 == 3:
            assert [(row["x"], row["ok"], row["v1"]) for row in own] == [(n * rate, bool(n % 2), 1 / 7)]
        else:
            assert [(row["x"], row["k"], row["t"]) for row in own] == [(n * rate, n, f"é{n}")]
    assert set(marks) == {point for point in range(80) if sweep.parameters(point)["n"] % 5 == 0}
    names = [column.name for column in next(batch for batch in run.batches() if len(batch)).columns]
    assert names[:2] == ["n", "rate"]
    assert run.progress()["done"] == 80
    assert run.progress()["failed"] == 0


def test_only_what_is_missing_is_computed(start: Start) -> None:
    done = bytes([0b10100101, 0xFF, 0]) + bytes([0xFF] * 10)
    run = start("cheap", numbers(120), done)
    assert run.wait() == 0, run.log
    assert sorted(run.points()) == [1, 3, 4, 6, *range(16, 24), *range(104, 120)]


def test_nothing_is_left_to_do(start: Start) -> None:
    run = start("cheap", numbers(8), b"\xff")
    assert run.wait() == 0, run.log
    assert run.batches() == []


def test_a_module_of_the_code_comes_before_one_of_python(start: Start, tmp_path: Path) -> None:
    """As in a script, for all that a worker has not loaded itself before."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/random.py").write_text("mine = 4\n")
    run = start("f", numbers(2), code="import random\ndef f(n):\n    return {'x': random.mine}\n")
    assert run.wait() == 0, run.log
    assert [row["x"] for row in run.rows().values()] == [4, 4]


def test_folders_of_the_code_that_pythonpath_names_are_found(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the process was started, and whatever lies there."""
    for folder, number in ((tmp_path / "src", 1), (tmp_path / "code/src", 4)):
        folder.mkdir(parents=True)
        (folder / "inner.py").write_text(f"mine = {number}\n")
    monkeypatch.setenv("PYTHONPATH", "src:/elsewhere")
    run = start("f", numbers(2), code="import inner\ndef f(n):\n    return {'x': inner.mine}\n")
    assert run.wait() == 0, run.log
    assert [row["x"] for row in run.rows().values()] == [4, 4]


def test_workers_see_the_order(start: Start) -> None:
    run = start("about", numbers(1), threads=3)
    assert run.wait() == 0, run.log
    (row,) = run.rows().values()
    assert (row["threads"], row["cwd"]) == ("3", str(run.folder / "code"))


async def greet(address: str) -> None:
    """As Dask does. A server of its protocol answers at once."""
    await asyncio.wait_for(connect(address), timeout=3)


def test_what_listens_is_on_loopback_and_serves_nothing(start: Start) -> None:
    """Dask's own protocol would run code for whoever reaches it: nothing speaks it."""
    run = start("endless", numbers(10), workers=1)
    eventually(lambda: run.progress().get("running") == 1, run)
    processes = [psutil.Process(run.process.pid), *run.workers()]
    listening = [c.laddr for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} <= {"127.0.0.1"}
    for _, port in listening:
        for path in ("/", "/status", "/metrics", "/info/main/workers.html"):
            connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            connection.request("GET", path)
            assert connection.getresponse().status == 404
        with pytest.raises(OSError):
            asyncio.run(greet(f"tcp://127.0.0.1:{port}"))


def test_sigterm_keeps_what_was_returned_and_leaves_nothing(start: Start) -> None:
    run = start("slow", numbers(10_000))
    eventually(lambda: len(run.points()) > 50, run)
    processes = run.workers()
    before = set(run.points())
    run.process.terminate()
    began = time.monotonic()
    assert run.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - began < 20
    after = Counter(run.points())
    assert before <= set(after)
    assert max(after.values()) == 1
    assert psutil.wait_procs(processes, timeout=PATIENCE_S)[1] == []


def test_sigterm_does_not_wait_for_a_point_that_hangs(start: Start) -> None:
    run = start("endless", numbers(10))
    eventually(lambda: run.progress().get("running") == 2, run)
    processes = run.workers()
    run.process.terminate()
    assert run.wait() == 128 + signal.SIGTERM
    assert psutil.wait_procs(processes, timeout=PATIENCE_S)[1] == []


def test_workers_end_with_a_killed_driver(start: Start) -> None:
    run = start("slow", numbers(10_000))
    eventually(lambda: len(run.points()) > 10, run)
    processes = run.workers()
    assert len(processes) == 2
    run.process.kill()
    assert psutil.wait_procs(processes, timeout=PATIENCE_S)[1] == []
    again = start("cheap", numbers(10))
    assert again.wait() == 0, again.log


def test_a_full_spool_is_waited_for(start: Start, tmp_path: Path) -> None:
    waiting = tmp_path / "spool" / "00000001.batch"
    waiting.parent.mkdir()
    waiting.touch()
    os.truncate(waiting, 300 * 10**6)
    run = start("cheap", numbers(100))
    eventually(lambda: run.progress().get("workers") == 2, run)
    written = run.progress()
    eventually(lambda: (run.folder / "progress.json").stat().st_mtime > time.time() - 0.3 and run.progress(), run)
    assert written["done"] == run.progress()["done"] == 0
    assert list(waiting.parent.iterdir()) == [waiting]
    waiting.unlink()
    assert run.wait() == 0, run.log
    assert exactly_once(run, 100)


def test_many_cheap_points(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    run = start("cheap", numbers(200_000))
    driver, peak = psutil.Process(run.process.pid), 0
    while run.process.poll() is None:
        peak = max(peak, driver.memory_info().rss if driver.is_running() else 0)
        time.sleep(0.1)
    assert run.wait() == 0, run.log
    rate = 200_000 / (time.monotonic() - began)
    assert sum(map(len, run.batches())) == len(set(run.points())) == 200_000
    assert rate > 2_000
    assert peak < 600 * 10**6
    with capsys.disabled():
        sys.stdout.write(f"\n{rate:,.0f} points/s with the start, driver at most {peak / 10**6:,.0f} MB\n")


def test_a_grid_of_three_million_begins_at_once(start: Start) -> None:
    began = time.monotonic()
    grid = {"n": {"range": [1, 1560, 1]}, "m": {"range": [1, 2002, 1]}}
    run = start("cheap", grid)
    eventually(lambda: any(matching(run.folder / "spool", "*.batch")), run)
    first_s = time.monotonic() - began
    eventually(lambda: run.progress().get("done", 0) > 100_000, run)
    assert psutil.Process(run.process.pid).memory_info().rss < 600 * 10**6
    run.process.terminate()
    assert run.wait() == 128 + signal.SIGTERM
    assert first_s < 30  # some 2 s where nothing else runs
    assert max(Counter(run.points()).values()) == 1
