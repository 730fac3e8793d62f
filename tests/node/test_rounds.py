"""Rounds of points that results decide, with real agents, drivers and proposers."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import psutil
import pytest

from ems.databases import Claim, Round, State, reuse
from ems.stack.models import ExperimentSpec
from tests.databases.cases import batch, floats, ints
from tests.node.bench import Bench, bench, family, lapse, locked
from tests.node.sweeping import Sweeping
from tests.processes import PATIENCE_S, eventually, having

__all__ = ["bench"]

# Each call is noted. `propose` bisects for the place where f turns from 0 to 1, and waits at the gates that are there.
CODE = """
import os, pathlib, signal, time
run_dir = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parent
def gate(name):
    while (run_dir / name).exists():
        (run_dir / f"{name}-reached").touch()
        time.sleep(0.02)
def f(x, **more):
    with open(run_dir / "calls", "a") as calls:
        calls.write(f"{x}\\n")
    gate("gate-f")
    if x in (0.625, ) and (run_dir / "trouble").exists():
        raise ValueError("trouble")
    return {"y": int(x > 0.7)}
def propose(rows, round, seed):
    with open(run_dir / "proposed", "a") as calls:
        calls.write(f"{round} {seed}\\n")
    gate("gate-propose")
    low = max((row["x"] for row in rows if not row["y"]), default=0.0)
    high = min((row["x"] for row in rows if row["y"]), default=1.0)
    if high - low < 0.05:
        return None
    return [{"x": (low + high) / 2}]
"""
EXPECTED = [0.0, 1.0, 0.5, 0.75, 0.625, 0.6875, 0.71875]


class Rounds(Sweeping):
    def __init__(self, bench: Bench, *files: str, limits: Mapping[str, int] = {}, code: str = CODE, **job: object):
        self._limits = limits
        job = {"propose": "job:propose", "sweep": {"x": [0.0, 1.0]}, **job}
        first = len(job["sweep"]["x"]) if job["sweep"] else 0
        super().__init__(bench, *files, code=code, points=first, job={k: v for k, v in job.items() if v is not None})

    def _spec(self, options: Mapping[str, object], workers: int) -> ExperimentSpec:
        job = {"function": "job:f", **options}
        fields = {"project": "p", "experimenter": "researcher", "funding": "f", "environment": "env"}
        place = {"cluster": {"kind": "laptop", "workers": workers}, "limits": self._limits}
        return ExperimentSpec.model_validate({**fields, **place, "job": job, "results": {"table": "r"}})

    def noted(self, name: str) -> list[str]:
        file = self.run_dir / name
        return file.read_text().splitlines() if file.exists() else []

    @property
    def log(self) -> str:
        return "".join(file.read_text() for file in self.run_dir.glob("*.log"))


def test_rounds_go_on_until_nothing_is_proposed(bench):
    rounds = Rounds(bench)
    assert rounds.run() == (State.SUCCEEDED, 7, 0), rounds.log
    assert bench.values()["x"] == EXPECTED
    assert bench.row().log_tail == "6 rounds, 7 points; job:propose proposed no more"
    assert bench.row().registration.points_total == 7
    recorded = bench.database.rounds("e1")
    assert [(each.number, each.first_point, each.points) for each in recorded] == [
        *((number, number, 1) for number in range(2, 7)),
        (7, 7, 0),
    ]
    assert len({each.digest for each in recorded}) == 6
    assert sorted(map(float, rounds.noted("calls"))) == sorted(EXPECTED)
    assert len(rounds.noted("proposed")) == len(set(rounds.noted("proposed"))) == 6


def test_the_first_round_may_be_proposed_too(bench):
    """From no rows, by a function without further parameters; it may return grids."""
    code = """
def f(n, m):
    return [] if n == 2 else [{"k": 1}, {"k": 2}]
def propose(rows):
    if len(rows) < 5:
        return {"n": range(1, 4), "m": [rows.points()]}
"""
    rounds = Rounds(bench, code=code, sweep=None)
    assert rounds.run() == (State.SUCCEEDED, 6, 0), rounds.log
    assert bench.values() == {"m": [0] * 4 + [3] * 4, "n": [1, 1, 3, 3] * 2, "k": [1, 2] * 4}
    assert [each.number for each in bench.database.rounds("e1")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("limits", "points", "said"),
    [
        ({"max_rounds": 3}, 4, "3 rounds, 4 points; limits.max_rounds is 3"),
        (
            {"max_points": 4},
            4,
            "3 rounds, 4 points; round 4 would make it 5, and limits.max_points is 4",
        ),
        ({"max_rounds": 1}, 2, "1 round, 2 points; limits.max_rounds is 1"),
    ],
)
def test_limits_end_it_and_raised_ones_let_it_go_on(bench, limits, points, said):
    rounds = Rounds(bench, limits=limits)
    assert rounds.run() == (State.SUCCEEDED, points, 0), rounds.log
    assert bench.row().log_tail == f"{said}: raise it to go on"
    old = bench.row().registration
    spec = json.loads(old.spec)
    spec["limits"] |= dict.fromkeys(limits, 100)
    assert bench.database.register(replace(old, spec=json.dumps(spec))).state is State.REGISTERED
    assert rounds.run() == (State.SUCCEEDED, 7, 0), rounds.log
    assert bench.values()["x"] == EXPECTED
    assert max(Counter(rounds.noted("calls")).values()) == 1


PROBLEMS = {
    "raise ValueError('no idea')": "ValueError: no idea",
    "import sys; sys.exit('leaving')": "SystemExit: leaving",
    "import os; os._exit(3)": "The process that called it died, 3 times: exit code 3.",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "died, 3 times: signal 9 (SIGKILL).",
    "return 7": "propose returned an int: 7: allowed is a list of points, as [{'n': 10, 'rate': 0.5}]; a grid",
    "return [{'x': 1}, 7]": "propose returned a list with an int: 7: allowed is a list of points",
    "return [{'x': 1.0}, {'x': [1.0]}]": "propose returned points and grids in one list: allowed is",
    "return {'x': [object()]}": "propose: Column 'value' is an object: <object object at ",
    "return [{'x': float('nan')}]": "points[0].x is nan: allowed is text, a number, true or false (numbers are finite)",
    "return [{'x': None}]": "points[0].x is empty (null): allowed is text, a number, true or false",
    "return [{'x': 'a'}]": "x is text, but numbers in the rounds before: allowed is one type for a parameter",
    "return [{'x': 1.0}, {'x': 'a'}]": 'points.x is 1.0 and "a" in one round: allowed is one type for a parameter',
    "return [{'point': 1}]": 'points.point is "point": results tables keep that name',
    "return {'x': []}": "grids[0].x is empty: allowed is one value or more",
    "return {'x': {'range': [0, 10**12, 1]}}": "has 1,000,000,000,001 values: allowed are up to 100,000,000",
    "return [{}]": "points[0] has no parameter",
}


@pytest.mark.parametrize("statement", PROBLEMS)
def test_what_is_no_round_fails_the_run_and_is_not_recorded(bench, statement):
    rounds = Rounds(bench, code=f"def f(**_): return {{}}\ndef propose(rows):\n    {statement}\n")
    state, done, failed = rounds.run()
    assert (state, done, failed) == (State.FAILED, 2, 0), rounds.log
    error = bench.row().error
    assert error.startswith("Round 2 was not proposed by job:propose: ") and PROBLEMS[statement] in error
    assert bench.database.rounds("e1") == []


@pytest.mark.parametrize("returned", ["[{'z': 1}]", "{'x': [1], 'zip': [{'z': [1]}]}"])
def test_points_that_the_function_does_not_take_are_refused_before_they_are_computed(bench, returned):
    code = f"def f(x, y=0): return {{'v': x}}\ndef propose(rows): return {returned}\n"
    rounds = Rounds(bench, code=code, sweep={"x": [1, 2]})
    assert rounds.run() == (State.FAILED, 2, 0), rounds.log
    assert "which job:f does not take: " in bench.row().error and bench.database.rounds("e1") == []


def test_numbers_that_were_whole_stay_whole(bench):
    code = "def f(x): return {'y': x}\ndef propose(rows): return [{'x': 1.5}]\n"
    rounds = Rounds(bench, code=code, sweep={"x": [1, 2]})
    assert rounds.run()[0] is State.FAILED
    assert "x has numbers with a point, but whole ones in the rounds before: allowed are" in bench.row().error


def test_failed_points_are_told_and_the_run_goes_on(bench):
    code = """
def f(x):
    if x < 0:
        raise ValueError(f"no root of {x}")
    return {"y": x ** 0.5}
def propose(rows):
    failed = [each["parameters"]["x"] for each in rows.failures() if "no root" in each["error"]]
    return [{"x": -x} for x in failed if not any(row["x"] == -x for row in rows)]
"""
    rounds = Rounds(bench, code=code, sweep={"x": [-4.0, 9.0]}, max_failures=5)
    assert rounds.run() == (State.SUCCEEDED, 2, 1), rounds.log
    assert bench.values() == {"x": [9.0, 4.0], "y": [3.0, 2.0]}


def test_max_failures_holds_over_all_rounds(bench):
    code = """
def f(x):
    raise ValueError("never")
def propose(rows, round):
    return [{"x": float(round)}]
"""
    rounds = Rounds(bench, code=code, sweep={"x": [1.0]}, max_failures=3)
    assert rounds.run() == (State.FAILED, 0, 4), rounds.log
    assert len(bench.database.rounds("e1")) == 3
    assert "more than max_failures failed" in bench.row().error


def kill(process: subprocess.Popen[bytes] | psutil.Process) -> None:
    process.kill()
    process.wait(PATIENCE_S)


def driver(rounds: Rounds) -> psutil.Process:
    return next(each for each in having("ems.node.driver.driver", family(rounds.run_dir)) if each.ppid() != 1)


def proposers(rounds: Rounds) -> list[psutil.Process]:
    return having("ems.node.driver.propose", family(rounds.run_dir))


@pytest.mark.parametrize("gate", ["gate-f", "gate-propose"])
@pytest.mark.parametrize("whom", ["agent", "driver"])
def test_a_killed_run_goes_on_and_proposes_nothing_twice(bench, gate, whom):
    """While the first round is computed, and while the second one is proposed; then once more in a later round."""
    rounds = Rounds(bench, gate)
    agent = bench.start(rounds.run_dir)
    for again in range(2):
        eventually((rounds.run_dir / f"{gate}-reached").exists)
        kill(agent if whom == "agent" else driver(rounds))
        if whom == "agent":
            eventually(lambda: not family(rounds.run_dir))
            lapse(bench)
        else:
            assert agent.wait(PATIENCE_S) == 0 and bench.row().state is State.FAILED
            bench.database.reopen("e1")
        (rounds.run_dir / f"{gate}-reached").unlink()
        if again:
            (rounds.run_dir / gate).unlink()
        agent = bench.start(rounds.run_dir)
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.SUCCEEDED, rounds.log
    assert bench.values()["x"] == EXPECTED
    assert [each.number for each in bench.database.rounds("e1")] == [*range(2, 8)]


def test_a_killed_proposer_is_asked_again(bench):
    rounds = Rounds(bench, "gate-propose")
    agent = bench.start(rounds.run_dir)
    eventually((rounds.run_dir / "gate-propose-reached").exists)
    for process in proposers(rounds):
        process.kill()
    (rounds.run_dir / "gate-propose").unlink()
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.SUCCEEDED and bench.values()["x"] == EXPECTED, rounds.log


def test_a_recorded_round_is_computed_and_not_proposed_again(bench):
    """As after the death of a run between the record and the first of its points; also of the record of the end."""
    rounds = Rounds(bench)
    claim = bench.database.claim("e1", agent="elsewhere", lease_s=0.0)
    assert isinstance(claim, Claim)
    bench.database.propose(claim, Round(2, 2, 1, ({"x": [0.25]},), "d" * 64))
    bench.database.propose(claim, Round(3, 3, 0, (), "d" * 64))
    lapse(bench)
    assert rounds.run() == (State.SUCCEEDED, 3, 0), rounds.log
    assert sorted(bench.values()["x"]) == [0.0, 0.25, 1.0]
    assert rounds.noted("proposed") == []


def test_points_that_an_earlier_experiment_computed_are_copied_in_each_round(bench):
    rounds = Rounds(bench)
    mine = replace(bench.row().registration, job_digest="j")
    bench.database.register(mine)
    spec = json.loads(mine.spec)
    del spec["job"]["propose"]
    spec["job"]["sweep"] = [{"x": [0.5, 0.0, 0.75, 9.0]}]
    bench.database.register(replace(mine, id="e0", spec=json.dumps(spec), points_total=4))
    earlier = bench.database.claim("e0", agent="elsewhere", lease_s=60.0)
    assert earlier
    known = batch([0, 1, 2, 3], floats("x", 0.5, 0.0, 0.75, 9.0), ints("y", 0, 0, 1, 1))
    bench.database.store(earlier, known)
    assert rounds.run() == (State.SUCCEEDED, 7, 0), rounds.log
    assert bench.values()["x"] == EXPECTED
    assert sorted(map(float, rounds.noted("calls"))) == [0.625, 0.6875, 0.71875, 1.0]
    origins = [(origin.points, origin.source_points) for origin in bench.database.origins("e1")]
    assert origins == [(range(1), range(1, 2)), (range(2, 3), range(1)), (range(3, 4), range(2, 3))]


def test_what_was_computed_in_rounds_is_copied_by_a_grid(bench):
    rounds = Rounds(bench)
    mine = replace(bench.row().registration, job_digest="j")
    bench.database.register(mine)
    assert rounds.run()[0] is State.SUCCEEDED
    spec = json.loads(mine.spec)
    del spec["job"]["propose"]
    spec["job"]["sweep"] = [{"x": [0.625, 0.1, 1.0]}]
    grid = replace(mine, id="e2", spec=json.dumps(spec), points_total=3)
    assert reuse.count(bench.database, grid) == 2


def test_nothing_is_left_in_the_folder_but_what_runs_leave(bench):
    rounds = Rounds(bench)
    rounds.run()
    assert not (rounds.run_dir / "rounds").exists() and not family(rounds.run_dir)


def test_a_locked_database_is_waited_for_between_rounds(bench):
    rounds = Rounds(bench, "gate-propose")
    agent = bench.start(rounds.run_dir)
    eventually((rounds.run_dir / "gate-propose-reached").exists)
    with locked(bench):
        (rounds.run_dir / "gate-propose").unlink()
        time.sleep(1.0)
        assert agent.poll() is None
    assert agent.wait(PATIENCE_S) == 0
    assert bench.values()["x"] == EXPECTED


def test_a_run_that_is_cancelled_while_a_round_is_proposed_ends_and_may_go_on(bench):
    rounds = Rounds(bench, "gate-propose")
    agent = bench.start(rounds.run_dir)
    eventually((rounds.run_dir / "gate-propose-reached").exists)
    bench.database.request_cancel("e1")
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.CANCELLED and not family(rounds.run_dir)
    (rounds.run_dir / "gate-propose").unlink()
    bench.database.reopen("e1")
    assert rounds.run() == (State.SUCCEEDED, 7, 0), rounds.log


@pytest.mark.parametrize("pilot", [1, 2])
def test_a_pilot_is_of_the_first_round_and_then_rounds_go_on(bench, pilot):
    rounds = Rounds(bench)
    bench.database.register(replace(bench.row().registration, pilot=pilot))
    assert rounds.run() == (State.PILOTED, pilot, 0), rounds.log
    assert rounds.noted("proposed") == []
    bench.database.register(replace(bench.row().registration, pilot=None))
    assert rounds.run() == (State.SUCCEEDED, 7, 0), rounds.log
