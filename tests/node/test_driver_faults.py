"""Points, workers and code that fail in all ways, and what the sweep driver makes of each."""

from __future__ import annotations

import pytest

from tests.node.driving import Start, eventually, exactly_once, numbers, start, zipped

__all__ = ["start", "zipped"]

DIES_GATHERING = """
import os
from ems.node.driver import points
encode = points.encode
points.encode = lambda batch: os._exit(9) if 137 in batch.replaces else encode(batch)
def f(n):
    return {"x": n}
"""


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
