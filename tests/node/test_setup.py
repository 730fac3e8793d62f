"""What a sweep's `setup` returns, and what each call is given of it, with real workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from ems.databases import State
from tests.node.bench import Bench, bench
from tests.node.driving import Run, Start, eventually, exactly_once, numbers, start, zipped
from tests.node.sweeping import Sweeping
from tests.processes import PATIENCE_S

__all__ = ["bench", "start", "zipped"]

CODE = (Path(__file__).parent / "setup_functions.py").read_text()


def calls(run: Run, name: str = "calls") -> list[str]:
    """The processes that have called a set-up."""
    file = run.folder / "code" / name
    return file.read_text().split() if file.exists() else []


def test_an_array_is_made_once_and_shared_read_only(start: Start) -> None:
    run = start("total", numbers(200), code=CODE, setup="jobs:array")
    assert run.wait() == 0, run.log
    assert exactly_once(run, 200)
    rows = run.rows().values()
    assert {(row["total"], row["writable"]) for row in rows} == {(499500.0, False)}
    assert len({row["pid"] for row in rows}) == 2
    assert len(calls(run)) == 1
    assert "jobs:array took" in run.log and "are shared by all workers" in run.log


def test_what_has_arrays_and_tables_in_it_is_shared_as_it_is(start: Start) -> None:
    run = start("parts", numbers(20), code=CODE, setup="jobs:nested")
    assert run.wait() == 0, run.log
    assert len(calls(run)) == 1
    (row,) = {tuple(sorted((name, row[name]) for name in row if name != "n")) for row in run.rows().values()}
    assert dict(row) == {
        "sums": "66.0 66.0 30.0",
        "shapes": "[(3, 4), (4, 3), (3, 2)]",
        "others": "(array(['2020-01-31'], dtype='datetime64[D]'), array(7), array([], dtype=float64))",
        "table": "{'x': [1, 2], 's': ['é', None]}",
        "name": "ü",
        "one": "None",
        "writable": False,
        "types": "ndarray ndarray ndarray tuple",
    }


def test_anything_else_is_made_in_each_worker(start: Start) -> None:
    run = start("own", numbers(200), code=CODE, setup="jobs:model")
    assert run.wait() == 0, run.log
    rows = run.rows().values()
    assert all(row["pid"] == row["made_by"] and row["sum"] == 3 for row in rows)
    assert sorted(calls(run)) == sorted({str(row["pid"]) for row in rows})
    assert "each worker makes its own" in run.log


def test_a_set_up_may_return_nothing_and_a_function_may_take_anything(start: Start) -> None:
    run = start("without", numbers(200), code=CODE, setup="jobs:nothing")
    assert run.wait() == 0, run.log
    rows = run.rows().values()
    assert {row["known"] for row in rows} == {"{'context': None}"}
    assert len(calls(run)) == len({row["pid"] for row in rows}) == 2


def test_writing_into_a_shared_array_fails_the_point(start: Start) -> None:
    run = start("writing", numbers(3), code=CODE, setup="jobs:array")
    assert run.wait() == 0, run.log
    assert "read-only" in run.marks()[1].error
    assert len(run.marks()) == 3


@pytest.mark.parametrize(
    ("setup", "said", "tries"),
    [
        ("raising", "setup 'jobs:raising' raised ValueError: no data\nTraceback", 1),
        ("leaving", "setup 'jobs:leaving' raised SystemExit: no licence", 1),
        ("dying", "setup 'jobs:dying' killed its worker, 3 times: exit code 9.", 3),
        ("sleeping", "setup took longer than setup_timeout_s: 0.5, and was stopped.", 1),
        ("hungry", "setup took more than memory_mb: 400, and was stopped.", 1),
        ("needy", "setup 'jobs:needy' raised TypeError: needy() missing 1 required positional argument: 'path'", 0),
        ("absent", "setup 'jobs:absent' cannot be imported", 0),
        ("constant", "setup 'jobs:constant' is of type int, which cannot be called", 0),
    ],
)
def test_a_set_up_that_fails_is_one_error_of_the_run(start: Start, setup: str, said: str, tries: int) -> None:
    limits = {"setup_timeout_s": 0.5} if setup == "sleeping" else {}
    run = start("total", numbers(20), code=CODE, setup=f"jobs:{setup}", memory_mb=400, **limits)
    assert run.wait() == 1
    assert said in run.log
    assert tries <= len(calls(run)) <= tries + (tries > 0)  # another one may begin before all are ended
    assert run.batches() == []
    assert run.everything() == []


def test_a_function_that_does_not_take_it_is_told_before_anything_is_set_up(start: Start) -> None:
    run = start("unready", numbers(20), code=CODE, setup="jobs:array")
    assert run.wait() == 1
    assert "setup gives its value by the keyword `context`, which unready(n) lacks. Add that parameter" in run.log
    assert calls(run) == []


def test_the_limit_of_a_set_up_is_none_of_the_points(start: Start) -> None:
    run = start("filling", numbers(100), code=CODE, setup="jobs:array", setup_timeout_s=0.5)
    assert run.wait() == 0, run.log


def test_when_the_maker_is_killed_another_makes_it(start: Start) -> None:
    run = start("total", numbers(100), code=CODE, setup="jobs:once_killed")
    eventually(lambda: len(calls(run)) == 1, run)
    os.kill(int(calls(run)[0]), signal.SIGKILL)
    assert run.wait() == 0, run.log
    assert exactly_once(run, 100)
    assert len(calls(run)) == 2
    assert run.marks() == {}


def test_a_worker_that_replaces_another_maps_what_is_there(start: Start) -> None:
    run = start("mortal", numbers(200), code=CODE, setup="jobs:array")
    assert run.wait() == 0, run.log
    assert exactly_once(run, 200)
    assert len(calls(run, "died")) == 1
    assert len(calls(run)) == 1
    assert {row["total"] for row in run.rows().values()} == {499500.0}


def test_a_set_up_may_fork(start: Start) -> None:
    run = start("total", numbers(50), code=CODE, setup="jobs:forking")
    assert run.wait() == 0, run.log
    assert {row["total"] for row in run.rows().values()} == {6.0}


def test_nothing_to_compute_sets_nothing_up(start: Start) -> None:
    run = start("total", numbers(8), b"\xff", code=CODE, setup="jobs:array")
    assert run.wait() == 0, run.log
    assert calls(run) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is shared")
def test_workers_have_a_large_array_once_and_only_their_own_counts(start: Start) -> None:
    """Mapped pages count for each process in proportion (PSS): so the sum is what the machine spends."""
    run = start("filling", numbers(2000), code=CODE, setup="jobs:large", memory_mb=350)
    eventually(lambda: len(run.points()) > 200, run)
    spent = sum(worker.memory_full_info().pss for worker in run.workers())
    resident = sum(worker.memory_info().rss for worker in run.workers())
    assert len(run.workers()) == 2
    assert resident > 400e6
    assert spent < 200e6 + 150e6
    run.process.terminate()
    assert run.wait() == 143


def test_nothing_of_it_is_left_after_a_kill(start: Start) -> None:
    run = start("filling", numbers(2000), code=CODE, setup="jobs:large")
    eventually(lambda: len(run.points()) > 20, run)
    processes = run.workers()
    files = [file for file in run.folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 10e6
    run.process.kill()
    assert psutil.wait_procs(processes, timeout=PATIENCE_S)[1] == []


def test_a_set_up_is_left_at_once_when_the_run_is_stopped(start: Start) -> None:
    run = start("total", numbers(10), code=CODE, setup="jobs:sleeping")
    eventually(lambda: calls(run), run)
    processes = run.workers()
    began = time.monotonic()
    run.process.terminate()
    assert run.wait() == 143
    assert time.monotonic() - began < 20
    assert psutil.wait_procs(processes, timeout=PATIENCE_S)[1] == []


def test_a_run_folder_without_room_is_named(start: Start, tmp_path: Path) -> None:
    code = CODE + "\nimport resource\ndef limited():\n    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
    code += "    import signal\n    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n    return large()\n"
    run = start("total", numbers(10), code=code, setup="jobs:limited")
    assert run.wait() == 1
    assert "setup returned what the run's folder has no room for" in run.log


NEEDS_DATA = """
import os, pathlib
run_dir = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parent
def load():
    return float((run_dir / "data").read_text())
def f(x, context):
    return {"y": x * context}
"""


def test_the_row_has_the_error_and_the_next_attempt_tries_again(bench: Bench) -> None:
    sweep = Sweeping(bench, code=NEEDS_DATA, points=5, job={"setup": "job:load"})
    assert sweep.run() == (State.FAILED, 0, 0)
    said = bench.row().error
    assert said.startswith("setup 'job:load' raised FileNotFoundError: [Errno 2] No such file or directory")
    assert "in load" in bench.row().log_tail
    (sweep.run_dir / "data").write_text("0.5")
    assert bench.database.reopen("e1")
    assert sweep.run() == (State.SUCCEEDED, 5, 0)
    assert bench.values()["y"] == [0, 0.5, 1, 1.5, 2]
