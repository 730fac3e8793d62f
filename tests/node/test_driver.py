"""The sweep driver with real workers, run as the agent runs it: from the bundle's ems.zip."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed.comm import connect

from ems.provenance import bundle
from ems.spool import folder as spool
from ems.spool.batch import Batch, Mark
from ems.sweep import Sweep
from tests.processes import PATIENCE_S, having, matching

DIES_GATHERING = """
import os
from ems.node.driver import points
encode = points.encode
points.encode = lambda batch: os._exit(9) if 137 in batch.replaces else encode(batch)
def f(n):
    return {"x": n}
"""
CODE = (Path(__file__).parent / "driver_functions.py").read_text()


@dataclass
class Run:
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "job.log").read_text()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def batches(self) -> list[Batch]:
        return [spool.read(path) for path in sorted((self.folder / "spool").glob("*.batch"))]

    def points(self) -> list[int]:
        return [point for batch in self.batches() for point in batch.replaces]

    def marks(self) -> dict[int, Mark]:
        return {mark.point: mark for batch in self.batches() for mark in batch.marks}

    def rows(self) -> dict[tuple[int, int], dict[str, object]]:
        return {
            (batch.points[i], batch.rows[i]): {column.name: column.values[i] for column in batch.columns}
            for batch in self.batches()
            for i in range(len(batch))
        }

    def progress(self) -> dict[str, Any]:
        file = self.folder / "progress.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def everything(self) -> list[psutil.Process]:
        """All that it has started, as far as it has not ended."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        return having("ems.node.driver.worker", self.everything())


Start = Callable[..., Run]


@pytest.fixture(scope="session")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("node") / "ems.zip"
    file.write_bytes(bundle._node_code())
    return file


@pytest.fixture
def start(tmp_path: Path, zipped: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def started(
        function: str, grid: Mapping[str, object], done: bytes = b"", code: str = CODE, **options: object
    ) -> Run:
        folder = tmp_path / "code"
        folder.mkdir(exist_ok=True)
        (folder / "jobs.py").write_text(code)
        (tmp_path / "done").write_bytes(done)
        files = {name: str(tmp_path / name) for name in ("code", "spool", "done")}
        order = {"function": f"jobs:{function}", "grids": [grid], **files, "workers": 2, "threads": 1}
        where = tmp_path / "order.json"
        where.write_text(json.dumps({**order, "progress": str(tmp_path / "progress.json"), **options}))
        call = f"from ems.node.driver.driver import main; main({str(where)!r})"
        script = f"import sys; sys.path[0] = {str(zipped)!r}; {call}"
        with (tmp_path / "job.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        runs.append(Run(tmp_path, process))
        return runs[-1]

    yield started
    for run in runs:
        if run.process.poll() is None:
            processes = [*run.everything(), run.process]
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            run.process.wait()


def numbers(count: int) -> dict[str, object]:
    return {"n": {"range": [0, count - 1, 1]}}


def eventually(condition: Callable[[], object], run: Run) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, f"it did not come true:\n{run.log}"
        assert run.process.poll() is None, f"the driver has ended:\n{run.log}"
        time.sleep(0.02)


def exactly_once(run: Run, total: int) -> bool:
    assert Counter(run.points()) == Counter(range(total))
    return True


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


def test_points_that_raise_leave_their_neighbours_alone(start: Start) -> None:
    run = start("raising", numbers(100))
    assert run.wait() == 0, run.log
    assert exactly_once(run, 100)
    marks = run.marks()
    assert set(marks) == {*range(3, 100, 10), 7, 8, 9}
    assert {row["n"] for row in run.rows().values()} == set(range(100)) - set(marks)
    assert marks[13].parameters == {"n": 13}
    assert marks[13].error.endswith("ValueError: no 13")
    assert 'raise ValueError(f"no {n}")' in marks[13].error
    assert "points.py" not in marks[13].error
    assert "SystemExit: leaving" in marks[7].error
    assert "Allowed: a dict" in marks[8].error
    assert "named like a parameter" in marks[9].error
    assert run.progress()["failed"] == 13


def test_points_are_tried_again_as_often_as_asked(start: Start) -> None:
    run = start("flaky", numbers(4), retries=1)
    assert run.wait() == 0, run.log
    assert [mark.error.splitlines()[-1] for mark in run.marks().values()] == ["RuntimeError: not yet"] * 4
    again = start("flaky", {"n": [10, 11, 12, 13]}, retries=2)
    assert again.wait() == 0, again.log
    assert [row["tries"] for row in again.rows().values()] == [3, 3, 3, 3]


def test_a_point_that_ends_its_worker_is_found(start: Start) -> None:
    run = start("deadly", numbers(600))
    assert run.wait() == 0, run.log
    assert exactly_once(run, 600)
    (mark,) = run.marks().values()
    assert (mark.point, mark.state, mark.parameters) == (137, "failed", {"n": 137})
    assert "Killed its worker" in mark.error
    assert "exit code 7" in mark.error
    assert {row["x"] for row in run.rows().values()} == set(range(600)) - {137}


def test_killed_workers_are_replaced_and_nobody_is_blamed(start: Start) -> None:
    run = start("slow", numbers(600))
    for stored in (5, 100, 250):
        eventually(lambda: len(run.points()) >= stored and len(run.workers()) == 2, run)  # noqa: B023
        run.workers()[0].kill()
    assert run.wait() == 0, run.log
    assert exactly_once(run, 600)
    assert run.marks() == {}
    assert "signal 9 (SIGKILL)" in run.log


def test_a_point_that_takes_too_long_is_stopped(start: Start) -> None:
    run = start("hanging", numbers(60), point_timeout_s=1.0)
    assert run.wait() == 0, run.log
    assert exactly_once(run, 60)
    (mark,) = run.marks().values()
    assert mark.point == 11
    assert "longer than point_timeout_s: 1" in mark.error


def test_a_point_that_holds_the_interpreter_is_ended(start: Start) -> None:
    run = start("holding", numbers(4), point_timeout_s=0.2)
    assert run.wait() == 0, run.log
    assert exactly_once(run, 4)
    assert list(run.marks()) == [3]
    assert "longer than point_timeout_s: 0.2" in run.marks()[3].error


def test_a_point_that_takes_too_much_memory_is_found(start: Start) -> None:
    run = start("hungry", numbers(40), memory_mb=400)
    assert run.wait() == 0, run.log
    assert exactly_once(run, 40)
    assert list(run.marks()) == [5]
    assert "more than memory_mb: 400" in run.marks()[5].error


def test_only_what_is_missing_is_computed(start: Start) -> None:
    done = bytes([0b10100101, 0xFF, 0]) + bytes([0xFF] * 10)
    run = start("cheap", numbers(120), done)
    assert run.wait() == 0, run.log
    assert sorted(run.points()) == [1, 3, 4, 6, *range(16, 24), *range(104, 120)]


def test_nothing_is_left_to_do(start: Start) -> None:
    run = start("cheap", numbers(8), b"\xff")
    assert run.wait() == 0, run.log
    assert run.batches() == []


def test_types_widen_and_conflicts_fail_alone(start: Start) -> None:
    run = start("typed", numbers(100), workers=1)
    assert run.wait() == 0, run.log
    assert exactly_once(run, 100)
    marks = run.marks()
    assert set(marks) == set(range(80, 100))
    assert "Column 'x' was float64 so far and is a str: '90'" in marks[90].error
    assert {row["n"]: row["x"] for row in run.rows().values()} == {n: n if n < 40 else n + 0.5 for n in range(80)}


def test_what_the_results_table_holds_already_counts(start: Start) -> None:
    run = start("cheap", numbers(10), types={"x": "text", "m2": "float64"})
    assert run.wait() == 0, run.log
    assert set(run.marks()) == set(range(10))
    assert "Column 'x' was text so far" in run.marks()[0].error


def test_too_many_failures_stop_the_run(start: Start) -> None:
    run = start("raising", numbers(200_000), max_failures=50)
    assert run.wait() == 3, run.log
    assert len(run.marks()) > 50
    assert len(run.points()) < 200_000


def test_a_missing_function_is_no_fault_of_the_points(start: Start) -> None:
    run = start("absent", numbers(10))
    assert run.wait() == 1
    assert run.batches() == []
    assert "function 'jobs:absent' cannot be imported" in run.log
    other = start("constant", numbers(10))
    assert other.wait() == 1
    assert "is of type int, which cannot be called" in other.log


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('leaving')", "SystemExit: leaving"),
        ("import os; os._exit(7)", "Each worker dies when it loads the code: exit code 7"),
    ],
)
def test_code_that_ends_its_process_is_no_fault_of_the_points(start: Start, code: str, said: str) -> None:
    run = start("f", numbers(10), code=code)
    assert run.wait() == 1
    assert run.batches() == []
    assert said in run.log


def test_a_worker_that_dies_with_all_results_is_searched_for_the_cause(start: Start) -> None:
    run = start("f", numbers(200), code=DIES_GATHERING)
    assert run.wait() == 0, run.log
    assert exactly_once(run, 200)
    (mark,) = run.marks().values()
    assert (mark.point, mark.parameters) == (137, {"n": 137})
    assert "Killed its worker, 3 times: exit code 9" in mark.error


def test_a_module_of_the_code_comes_before_one_of_python(start: Start, tmp_path: Path) -> None:
    """As in a script, for all that a worker has not loaded itself before."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/random.py").write_text("mine = 4\n")
    run = start("f", numbers(2), code="import random\ndef f(n):\n    return {'x': random.mine}\n")
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
