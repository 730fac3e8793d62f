"""Sweeps through the command line and the real engine: failed points, interruptions, what is computed again."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml

from ems.spool.folder import read
from tests import tally
from tests.end_to_end.conftest import User
from tests.processes import PATIENCE_S, matching

ROOT = Path(__file__).parents[2]
POINTS = [(a, x) for a in (1, 2) for x in range(30)]  # in the order of their numbers

# Each call is noted outside of the code. While `.ems/trouble` is there, some points fail; while `.ems/wait` is there,
# those of a = 2 do not end.
CODE = """
import os, pathlib, time
notes = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parents[2]

def f(a, x):
    with open(notes / "calls", "a") as calls:
        calls.write(f"{a},{x}\\n")
    while a == 2 and (notes / "wait").exists():
        time.sleep(0.05)
    if x % 13 == 7 and (notes / "trouble").exists():
        raise ValueError(f"trouble at {a}, {x}")
    time.sleep(0.05)
    return {"value": a + x / 7}
"""


class Sweeper(User):
    """Works on a lab whose stack `e` is a sweep over POINTS."""

    def sweep(self, code: str = CODE, **limits: float) -> None:
        shutil.copytree(ROOT / "environments/svd", self.root / "environments/svd")
        described = {
            "project": "first",
            "experimenter": "me",
            "funding": "unfunded",
            "code": {"paths": ["experiments/e"]},
            "environment": "svd",
            "job": {"function": "experiments.e.job:f", "sweep": {"x": {"range": [0, 29, 1]}, "a": [1, 2]}},
            "results": {"table": "e"},
            "cluster": {"kind": "laptop", "workers": 2},
            "limits": limits,
        }
        self.write("stacks/Pulumi.e.yaml", json.dumps({"config": {"ems:experiment": described}}, indent=2))
        self.write("experiments/e/job.py", code)
        self.commit("A sweep")

    def note(self, name: str) -> Path:
        path = self.root / ".ems" / name
        path.touch()
        return path

    def calls(self) -> Counter[tuple[int, ...]]:
        lines = (self.root / ".ems/calls").read_text().splitlines()
        return Counter(tuple(map(int, line.split(","))) for line in lines)

    def points(self) -> list[tuple[int, int]]:
        """Parameters of the stored points, as the rows have them."""
        return self.query("SELECT a, x FROM e ORDER BY point, row")

    def kept(self) -> set[tuple[int, int]]:
        """The points that are stored, or on their way to it."""
        files = matching(self.root / ".ems/runs", "*/spool-*/*.batch")
        waiting = [number for path in files for number in read(path).replaces]
        return {*self.points(), *(POINTS[number] for number in waiting)}

    def counters(self) -> tuple[str, int, int, int]:
        ((state, done, failed, machines),) = self.query(
            "SELECT state, points_done, points_failed, machines FROM experiment"
        )
        return state, done, failed, machines

    def assert_whole(self) -> None:
        """Each point is stored once, with its value; nothing is left running."""
        rows = self.query("SELECT a, x, value FROM e ORDER BY point, row")
        tally.compare(rows, [(a, x, a + x / 7) for a, x in POINTS], key=2)
        assert self.counters() == ("succeeded", len(POINTS), 0, 0)
        assert self.query("SELECT count(*) FROM point") == [(0,)]
        self.assert_nothing_left()


@pytest.fixture
def sweeper(user: User) -> Sweeper:
    somebody = Sweeper(user.root, user.started)
    somebody.sweep()
    return somebody


def test_failed_points_are_marked_and_a_retry_computes_just_those(sweeper: Sweeper) -> None:
    trouble = sweeper.note("trouble")
    troubled = [point for point in POINTS if point[1] % 13 == 7]
    said = sweeper.ems("up", "e", expect=6)
    assert "4 points failed" in said.stdout + said.stderr
    assert sweeper.counters() == ("failed", 56, 4, 0)
    assert sweeper.points() == [point for point in POINTS if point not in troubled]
    marks = sweeper.query("SELECT point, state, parameters, error FROM point ORDER BY point")
    assert [(POINTS[number], state) for number, state, _, _ in marks] == [(point, "failed") for point in troubled]
    assert [json.loads(text) for _, _, text, _ in marks] == [{"a": a, "x": x} for a, x in troubled]
    assert all(
        "in f\n" in error and f"ValueError: trouble at {a}, {x}" in error
        for (a, x), (_, _, _, error) in zip(troubled, marks, strict=True)
    )
    trouble.unlink()
    sweeper.ems("up", "e", "--retry")
    sweeper.assert_whole()
    calls = Counter(POINTS) + Counter(troubled)
    assert sweeper.calls() == calls
    _grows(sweeper, calls)


def _grows(sweeper: Sweeper, calls: Counter[tuple[int, ...]]) -> None:
    """More values: a new experiment, which computes only what is new."""
    file = sweeper.root / "stacks/Pulumi.e.yaml"
    described = yaml.safe_load(file.read_text())
    described["config"]["ems:experiment"]["job"]["sweep"] = {"x": {"range": [0, 34, 1]}, "a": [2, 1, 3]}
    file.write_text(yaml.safe_dump(described))
    sweeper.commit("More points")
    note = "reuses 60 points of earlier experiments, computes 45"
    assert note in sweeper.ems("pulumi", "preview", "--stack", "e").stdout
    assert note in sweeper.ems("up", "e").stdout
    grown = [(a, x) for a in (2, 1, 3) for x in range(35)]
    assert sweeper.calls() == calls + Counter(point for point in grown if point not in POINTS)
    values = "SELECT a, x, value FROM e WHERE experiment_id = (SELECT id FROM experiment WHERE points_total = 105)"
    assert sweeper.query(f"{values} ORDER BY point, row") == [(a, x, a + x / 7) for a, x in grown]
    assert sweeper.query("SELECT sum(last_point - first_point + 1) FROM copied") == [(60,)]
    assert sweeper.query(
        "SELECT state, points_done, points_failed, rows_stored FROM experiment ORDER BY points_total"
    ) == [
        ("succeeded", 60, 0, 60),
        ("succeeded", 105, 0, 105),
    ]
    assert "reuses" not in sweeper.ems("pulumi", "preview", "--stack", "e").stdout


def test_a_module_that_is_nowhere_is_refused_and_excluded_points_are_not_computed(sweeper: Sweeper) -> None:
    file = sweeper.root / "stacks/Pulumi.e.yaml"
    described = json.loads(file.read_text())
    job = described["config"]["ems:experiment"]["job"]
    job |= {"function": "eksperiments.e.job:f", "exclude": ["x > 2", {"a": 2, "x": 0}]}
    sweeper.write("stacks/Pulumi.e.yaml", json.dumps(described, indent=2))
    sweeper.commit("A module that is nowhere")
    said = sweeper.ems("up", "e", expect=2).stderr
    assert "job.function: is in eksperiments.e.job, which neither code.paths nor the environment svd have" in said
    assert sweeper.query("SELECT count(*) FROM experiment") == [(0,)]
    job["function"] = "experiments.e.job:f"
    sweeper.write("stacks/Pulumi.e.yaml", json.dumps(described, indent=2))
    sweeper.commit("The right one")
    sweeper.ems("up", "e")
    assert sweeper.points() == [(1, 0), (1, 1), (1, 2), (2, 1), (2, 2)] and len(sweeper.calls()) == 5
    assert sweeper.query("SELECT points_total, points_done FROM experiment") == [(5, 5)]
    assert sweeper.ems("points", "e", "--csv").stdout.splitlines()[1:] == []


def test_after_kill_9_of_everything_only_what_was_lost_is_computed_again(sweeper: Sweeper) -> None:
    wait = sweeper.note("wait")
    command = sweeper.start("up", "e")
    sweeper.wait(lambda: sweeper.stored() >= 5)
    while found := sweeper.processes():
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):  # another's death was its end
                process.kill()
    assert command.wait(PATIENCE_S) == -signal.SIGKILL
    kept = sweeper.kept()
    wait.unlink()
    sweeper.ems("up", "e")
    sweeper.assert_whole()
    calls = sweeper.calls()
    assert len(kept) >= 5 and all(calls[point] == 1 for point in kept)


def test_ctrl_c_keeps_what_was_computed_and_a_retry_goes_on(sweeper: Sweeper) -> None:
    wait = sweeper.note("wait")
    command = sweeper.start("up", "e")
    sweeper.wait(lambda: sweeper.stored() >= 5)
    command.send_signal(signal.SIGINT)
    assert command.wait(PATIENCE_S) == 130, sweeper.said(command)
    kept = sweeper.kept()
    assert sweeper.counters() == ("cancelled", len(kept), 0, 0)
    sweeper.wait(lambda: not sweeper.processes())
    wait.unlink()
    sweeper.ems("up", "e", "--retry")
    sweeper.assert_whole()
    calls = sweeper.calls()
    assert all(calls[point] == 1 for point in kept)


def test_the_notebook_draws_the_transition_and_the_vectors_are_stored_whole(sweeper: Sweeper) -> None:
    shutil.copytree(ROOT / "experiments/svd", sweeper.root / "experiments/svd")
    shutil.copytree(ROOT / "notebooks", sweeper.root / "notebooks", dirs_exist_ok=True)
    for stack, sweep in {
        "svd": {"m": [60], "n": [120], "theta": [0.2, 2], "seed": {"count": 10}},
        "svd-vectors": {"m": [50], "n": [1000], "theta": [0.5, 2], "seed": {"count": 2}},
    }.items():
        text = (ROOT / f"stacks/Pulumi.{stack}.yaml").read_text()
        sweeper.write(f"stacks/Pulumi.{stack}.yaml", smaller(text, sweep))
    sweeper.commit("The samples, smaller")
    sweeper.ems("up", "svd", "svd-vectors")
    below, above = (
        sweeper.query(f"SELECT avg(sigma), avg(overlap_u), avg(overlap_v), count(*) FROM svd WHERE theta = {theta}")[0]
        for theta in (0.2, 2)
    )
    assert below == pytest.approx((1 + 0.5**0.5, 0, 0, 10), abs=0.15)
    assert above == pytest.approx((2.371708, 0.861111, 0.775, 10), abs=0.08)
    done = subprocess.run(
        [sys.executable, "notebooks/svd.py"], cwd=sweeper.root, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0 and "20 rows" in done.stdout, done.stderr
    assert (sweeper.root / "svd.png").read_bytes().startswith(b"\x89PNG\r\n")
    (vector, *_) = sweeper.query("SELECT * FROM svd_vectors ORDER BY point DESC")
    assert sum(entry**2 for entry in vector[-1000:]) == pytest.approx(1)


def smaller(stack_file: str, sweep: dict[str, object]) -> str:
    """The sample's stack file with another grid, as part of the lab of the tests."""
    described = yaml.safe_load(stack_file)["config"]["ems:experiment"]
    described["job"]["sweep"] = sweep
    described |= {"project": "first", "experimenter": "me"}
    return json.dumps({"config": {"ems:experiment": described}}, indent=2)
