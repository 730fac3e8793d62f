"""What becomes of a sweep whose points fail, and of one whose database, driver or bundle goes away meanwhile."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ems.databases import State
from ems.spool.folder import read
from tests.node.bench import Bench, bench, family
from tests.node.sweeping import POINTS, ROWS, TROUBLED, Sweeping, all_spooled
from tests.processes import PATIENCE_S, eventually, having

__all__ = ["bench"]


@pytest.mark.parametrize(
    ("max_failures", "state", "error"),
    [
        (None, State.FAILED, "4 points failed: ValueError: trouble at 3"),
        (4, State.SUCCEEDED, ""),
        (1, State.FAILED, "than"),
    ],
)
def test_max_failures_decides_what_becomes_of_a_sweep_with_failed_points(
    bench: Bench, max_failures: int | None, state: State, error: str
) -> None:
    sweep = Sweeping(bench, "trouble", job={"max_failures": max_failures})
    assert sweep.run()[0] is state
    row = bench.row()
    assert error in row.error
    assert sweep.failed() == TROUBLED[: row.points_failed]
    assert row.points_done + row.points_failed == sum(sweep.calls().values())
    if max_failures == 1:
        assert row.points_failed >= 2 and row.points_done < POINTS - len(TROUBLED)
    else:
        assert (row.points_done, row.points_failed) == (36, 4)
        assert sweep.stored() == [x for x in ROWS if x not in TROUBLED]
    assert family(sweep.run_dir) == []


def test_another_attempt_computes_just_what_failed(bench: Bench) -> None:
    sweep = Sweeping(bench, "trouble")
    assert sweep.run() == (State.FAILED, 36, 4)
    (sweep.run_dir / "trouble").unlink()
    bench.database.reopen("e1")
    assert sweep.run() == (State.SUCCEEDED, 40, 0)
    assert (sweep.stored(), sweep.failed()) == (ROWS, [])
    assert sweep.calls() == Counter(range(POINTS)) + Counter(TROUBLED)
    assert (sweep.run_dir / "job.log").read_text() == (
        "--- attempt 1 ---\nems: 40 points to compute on 1 workers\nems: 40 points done, 4 of them failed\n"
        "--- attempt 2 ---\nems: 4 points to compute on 1 workers\nems: 4 points done, 0 of them failed\n"
    )


BEYOND_DOUBLES = """
import os, pathlib
trouble = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parent / "trouble"
def f(x):
    if x > 0 and trouble.exists():
        raise ValueError(x)
    return {"k": 2**53 + 1 if x == 0 else x if x < 3 else 0.5, "d": 0.5 if x else 1}
"""


def test_another_attempt_knows_that_a_column_has_integers_beyond_the_doubles(bench: Bench) -> None:
    """A fraction in it then is the fault of its point, and no fault of storing; a column of small ones takes it."""
    sweep = Sweeping(bench, "trouble", code=BEYOND_DOUBLES, points=4)
    assert sweep.run() == (State.FAILED, 1, 3)
    (sweep.run_dir / "trouble").unlink()
    bench.database.reopen("e1")
    assert sweep.run() == (State.FAILED, 3, 1)
    assert bench.values() == {"x": [0, 1, 2], "k": [2**53 + 1, 1, 2], "d": [1.0, 0.5, 0.5]}
    (failure,) = bench.database.failures("e1")
    assert failure.point == 3 and "Column 'k' was int64 beyond the exact doubles so far" in failure.error


def test_a_second_attempt_counts_what_fails_in_it_and_still_knows_what_failed_in_the_first(bench: Bench) -> None:
    sweep = Sweeping(bench, "trouble", job={"max_failures": 0})
    state, done, failed = sweep.run()
    assert state is State.FAILED and failed
    sweep.make("wait")
    bench.database.reopen("e1")
    agent = bench.start(sweep.run_dir)
    eventually(lambda: having("driver", family(sweep.run_dir)))
    seen = bench.row()
    eventually(lambda: bench.row().heartbeat_at > seen.heartbeat_at)  # it has counted
    assert (bench.row().points_done, bench.row().points_failed) == (done, 0)
    bench.database.request_cancel("e1")
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert (row.state, row.points_failed) == (State.CANCELLED, len(sweep.failed()))
    assert row.points_done == len(sweep.computed())


def test_a_bundle_that_disappears_during_the_run_is_not_missed(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait", job={"max_failures": 2})
    agent = bench.start(sweep.run_dir)
    eventually(sweep.stored)
    sweep.package.unlink()
    sweep.make("go")
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.SUCCEEDED and sweep.stored() == ROWS


def test_a_batch_that_is_damaged_while_the_run_goes_on_is_computed_again_too(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    with all_spooled(sweep) as agent:
        last = sorted(sweep.run_dir.glob("spool-1/*.batch"))[-1]
        lost = set(read(last).replaces)
        last.write_bytes(b"")
    assert agent.wait(PATIENCE_S) == 0
    assert (bench.row().state, sweep.stored()) == (State.SUCCEEDED, ROWS)
    assert {x for x, times in sweep.calls().items() if times == 2} == lost


def test_a_database_that_is_away_in_mid_run_is_waited_for(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    with all_spooled(sweep) as agent:
        assert agent.poll() is None
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert (row.state, row.points_done, row.rows_stored, row.attempt) == (State.SUCCEEDED, 40, 39, 1)
    assert sweep.stored() == ROWS and sweep.calls() == Counter(range(POINTS))


def test_a_killed_driver_fails_the_run_and_leaves_no_process(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    agent = bench.start(sweep.run_dir)
    eventually(sweep.stored)
    sweep.process("ems.node.driver.driver").kill()
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert row.state is State.FAILED and "the sweep's driver: killed by signal 9" in row.error
    assert row.points_done == len(sweep.computed())
    assert family(sweep.run_dir) == []


def test_files_that_a_function_leaves_are_kept(bench: Bench) -> None:
    """In the working directory that all workers share, and in the folder of results files, which it does not need."""
    code = (
        "import os\ndef f(x):\n    open(f'plot-{x}.png', 'w').write('x' * x)\n"
        "    open(os.environ['EMS_RESULTS_DIR'] + '/a.csv', 'a').write('x')\n    return {'y': x}\n"
    )
    sweep = Sweeping(bench, code=code, points=3)
    row = bench.run(sweep.run_dir)
    assert (row.state, row.rows_stored) == (State.SUCCEEDED, 3)
    found = {file["name"]: file["bytes"] for file in json.loads(row.files_left)}
    assert found == {"plot-0.png": 0, "plot-1.png": 1, "plot-2.png": 2, "EMS_RESULTS_DIR/a.csv": 3}


def test_rows_that_nobody_wants_end_the_run_at_the_first_point(bench: Bench) -> None:
    sweeping = Sweeping(bench, points=1000, results="none")
    row = bench.run(sweeping.run_dir)
    assert row.state is State.FAILED and row.error == (
        "Point 0 has rows, but the stack file says `results: none`: name a table for them, as results: "
        "{table: NAME}, or return no rows."
    )
    assert list(sweeping.calls()) == [0]
