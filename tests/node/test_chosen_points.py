"""Which points of a sweep a run computes, and in which order."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ems.databases import State
from tests.node.bench import Bench, bench, family
from tests.node.sweeping import POINTS, ROWS, TROUBLED, Sweeping
from tests.node.test_command_sweep import Programs
from tests.processes import PATIENCE_S, eventually

__all__ = ["bench"]


def called(sweep: Sweeping) -> list[int]:
    """The points in the order in which they were computed."""
    return list(map(int, (sweep.run_dir / "calls").read_text().split()))


def described(bench: Bench, **job: object) -> None:
    """The stack file says something else of the job, of the same experiment."""
    registration = bench.row().registration
    spec = json.loads(registration.spec)
    spec["job"].update(job)
    bench.database.register(replace(registration, spec=json.dumps(spec)))


def test_a_random_order_computes_the_same_points(bench: Bench) -> None:
    sweep = Sweeping(bench, job={"order": "random"})
    assert sweep.run() == (State.SUCCEEDED, POINTS, 0)
    calls = called(sweep)
    assert calls != sorted(calls) and sorted(calls) == list(range(POINTS))
    assert sweep.stored() == ROWS


def test_another_order_applies_when_the_experiment_goes_on(bench: Bench) -> None:
    sweep = Sweeping(bench, "trouble", job={"max_failures": 0})
    assert sweep.run()[0] is State.FAILED
    before = called(sweep)
    assert before == list(range(len(before)))
    (sweep.run_dir / "trouble").unlink()
    described(bench, order="random")
    bench.database.reopen("e1")
    assert sweep.run() == (State.SUCCEEDED, POINTS, 0)
    after = called(sweep)[len(before) :]
    assert after != sorted(after) and sweep.stored() == ROWS
    assert set(before) & set(after) <= set(TROUBLED)


LEFT_OUT = {0, *range(10, 20), 33}
EXCLUDE = ["x >= 10 and x < 20", {"x": 33}, "x == 0"]


@pytest.mark.parametrize("order", ["grid", "random"])
def test_points_left_out_are_not_computed(bench: Bench, order: str) -> None:
    sweep = Sweeping(bench, job={"exclude": EXCLUDE, "order": order})
    assert sweep.run() == (State.SUCCEEDED, POINTS - len(LEFT_OUT), 0)
    kept = [x for x in range(POINTS) if x not in LEFT_OUT]
    assert sorted(called(sweep)) == kept
    assert sweep.stored() == [x for x in kept if x != 5]
    assert "28 points to compute" in (sweep.run_dir / "job.log").read_text()


def test_the_heir_of_a_crash_leaves_them_out_too(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait", job={"exclude": EXCLUDE})
    agent = bench.start(sweep.run_dir)
    eventually(sweep.stored)
    agent.kill()
    agent.wait(PATIENCE_S)
    sweep.make("go")
    assert sweep.run() == (State.SUCCEEDED, POINTS - len(LEFT_OUT), 0)
    assert set(called(sweep)) == set(range(POINTS)) - LEFT_OUT


def test_a_pilot_computes_a_sample_and_the_rest_follows(bench: Bench) -> None:
    sweep = Sweeping(bench, "trouble", job={"exclude": EXCLUDE})
    bench.database.register(replace(bench.row().registration, pilot=8))
    state, done, failed = sweep.run()
    assert (state, done + failed, bench.row().machines) == (State.PILOTED, 8, 0)
    sample = called(sweep)
    assert len(set(sample)) == 8 and not set(sample) & LEFT_OUT
    measured = json.loads(bench.row().platform)["measured"]
    assert (measured["points"], measured["workers"]) == (8, 1)
    assert 8 * 0.04 < measured["worker_s"] < measured["took_s"] and 5 < measured["memory_mb"] < 2000
    assert sweep.run()[0] is State.PILOTED and called(sweep) == sample
    bench.database.register(replace(bench.row().registration, pilot=12))
    assert sweep.run()[0] is State.PILOTED
    assert len(set(called(sweep))) == len(called(sweep)) == 12
    bench.database.register(replace(bench.row().registration, pilot=None))
    (sweep.run_dir / "trouble").unlink()
    sweep.run()
    assert sorted(called(sweep)) == [x for x in range(POINTS) if x not in LEFT_OUT]
    assert bench.row().wanted_attempt == 1 and sweep.failed() == [x for x in called(sweep)[:12] if x in TROUBLED]


def test_a_pilot_that_loses_its_agent_goes_on_with_the_same_sample(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    bench.database.register(replace(bench.row().registration, pilot=15))
    agent = bench.start(sweep.run_dir)
    eventually(sweep.calls)
    agent.kill()
    agent.wait(PATIENCE_S)
    eventually(lambda: family(sweep.run_dir) == [])
    kept = {*sweep.computed(), *sweep.spooled()}
    sweep.make("go")
    assert sweep.run()[:2] == (State.PILOTED, 15)
    calls = sweep.calls()
    assert len(calls) == 15 and all(calls[x] == 1 for x in kept)


def test_a_pilot_that_becomes_the_whole_while_it_runs_goes_on(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    bench.database.register(replace(bench.row().registration, pilot=20))
    agent = bench.start(sweep.run_dir)
    eventually(sweep.calls)
    bench.database.register(replace(bench.row().registration, pilot=None))
    sweep.make("go")
    assert agent.wait(PATIENCE_S) == 0
    assert (bench.row().state, bench.row().attempt, bench.row().points_done) == (State.SUCCEEDED, 1, POINTS)
    assert sweep.calls() == dict.fromkeys(range(POINTS), 1)


def test_a_pilot_of_all_points_is_the_whole(bench: Bench) -> None:
    sweep = Sweeping(bench)
    bench.database.register(replace(bench.row().registration, pilot=POINTS))
    assert sweep.run() == (State.SUCCEEDED, POINTS, 0)


def test_a_program_over_a_grid_has_all_of_this_too(bench: Bench) -> None:
    sweep = {"x": {"range": [0, 19, 1]}}
    programs = Programs(bench, points=9, sweep=sweep, exclude=["x >= 10", {"x": 0}], order="random")
    bench.database.register(replace(bench.row().registration, pilot=3))
    assert programs.run() == (State.PILOTED, 3, 0)
    measured = json.loads(bench.row().platform)["measured"]
    assert measured["points"] == len(programs.calls()) == 3 and measured["memory_mb"] > 5
    bench.database.register(replace(bench.row().registration, pilot=None))
    assert programs.run() == (State.SUCCEEDED, 9, 0)
    calls = programs.calls()
    assert calls != sorted(calls) and sorted(calls) == list(range(1, 10))
    assert list(bench.values()["x"]) == [1, 2, 3, 4, 6, 7, 8, 9]
