"""A program over a grid through the command line and the real engine: it fails, is killed, grows."""

from __future__ import annotations

import contextlib
import json
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.conftest import User
from tests.processes import PATIENCE_S

POINTS = [(a, x) for a in (1, 2) for x in range(15)]

# Each start is noted outside of the code. While `.ems/trouble` is there, some points fail; while `.ems/wait` is there,
# those of a = 2 do not end.
PROGRAM = """
import argparse, os, pathlib, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--a", type=int)
parser.add_argument("--x", type=int)
parser.add_argument("--out", type=pathlib.Path)
p = parser.parse_args()
notes = p.out.parents[4]
assert os.environ["LABEL"] == f"{p.a} of {p.x}"
with open(notes / "calls", "a") as calls:
    calls.write(f"{p.a},{p.x}\\n")
while p.a == 2 and (notes / "wait").exists():
    time.sleep(0.05)
if p.x % 13 == 7 and (notes / "trouble").exists():
    sys.exit(f"trouble at {p.a}, {p.x}")
with open("fixed.tmp", "x"):  # another point's would be refused
    pass
(p.out / "rows.csv").write_text(f"value,a\\n{p.a + p.x / 7!r},{p.a}\\n")
"""


class Gridder(User):
    """Works on a lab whose stack `e` is a program over POINTS."""

    def grid(self, xs: list[int]) -> None:
        command = ["python", "experiments/e/job.py", "--a", "{a}", "--x={x}", "--out", "{results}"]
        described = {
            "project": "first",
            "experimenter": "me",
            "funding": "unfunded",
            "code": {"paths": ["experiments/e"]},
            "environment": "pi",
            "job": {"command": command, "sweep": {"x": xs, "a": [1, 2]}},
            "env": {"LABEL": "{a} of {x}"},
            "results": {"table": "e"},
            "cluster": {"kind": "laptop", "workers": 2},
        }
        self.write("stacks/Pulumi.e.yaml", json.dumps({"config": {"ems:experiment": described}}, indent=2))
        self.write("experiments/e/job.py", PROGRAM)
        self.commit("A program over a grid")

    def note(self, name: str) -> Path:
        (self.root / ".ems" / name).touch()
        return self.root / ".ems" / name

    def calls(self) -> Counter[tuple[int, ...]]:
        text = (self.root / ".ems/calls").read_text().split()
        return Counter(tuple(map(int, line.split(","))) for line in text)

    def points(self) -> list[tuple[int, int]]:
        return [(a, x) for a, x in self.query("SELECT a, x FROM e ORDER BY point")]

    def assert_whole(self) -> None:
        assert self.query("SELECT a, x, value FROM e ORDER BY point, row") == [(a, x, a + x / 7) for a, x in POINTS]
        assert self.state() == "succeeded"
        self.assert_nothing_left()


@pytest.fixture
def gridder(user: User) -> Gridder:
    somebody = Gridder(user.root, user.started)
    somebody.grid(list(range(15)))
    return somebody


def test_failed_points_are_told_retried_and_a_grid_that_grows_computes_only_what_is_new(gridder: Gridder) -> None:
    trouble = gridder.note("trouble")
    said = gridder.ems("up", "e", expect=6)
    assert "2 points failed: trouble at 1, 7 (exit code 1)" in (said.stdout + said.stderr).replace("\n", " ")
    told = gridder.ems("failures", "e").stdout
    assert "such as trouble at 1, 7 (exit code 1)" in told and "a=1, x=7" in told
    assert "28" in gridder.ems("status", "e").stdout
    trouble.unlink()
    gridder.ems("up", "e", "--retry")
    gridder.assert_whole()
    calls = Counter(POINTS) + Counter([(1, 7), (2, 7)])
    assert gridder.calls() == calls
    gridder.grid(list(range(17)))
    assert "reuses 30 points of earlier experiments, computes 4" in gridder.ems("up", "e").stdout
    assert gridder.calls() == calls + Counter([(1, 15), (1, 16), (2, 15), (2, 16)])


def test_after_kill_9_of_everything_twice_only_what_was_lost_is_computed_again(gridder: Gridder) -> None:
    wait = gridder.note("wait")
    stored: list[tuple[int, int]] = []
    before: Counter[tuple[int, ...]] = Counter()
    for enough in (1, 10):
        command = gridder.start("up", "e")
        gridder.wait(lambda enough=enough: gridder.stored() >= enough)
        while found := gridder.processes():
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):  # another's death was its end
                    process.kill()
        assert command.wait(PATIENCE_S) == -signal.SIGKILL
        stored, before = gridder.points(), gridder.calls()
    wait.unlink()
    gridder.ems("up", "e")
    gridder.assert_whole()
    calls = gridder.calls()
    assert len(stored) >= 10 and all(calls[point] == before[point] for point in stored)


def test_ctrl_c_ends_the_programs_and_a_retry_goes_on(gridder: Gridder) -> None:
    wait = gridder.note("wait")
    command = gridder.start("up", "e")
    gridder.wait(lambda: gridder.stored() >= 10)
    command.send_signal(signal.SIGINT)
    assert command.wait(PATIENCE_S) == 130, gridder.said(command)
    gridder.wait(lambda: not gridder.processes())
    kept = gridder.points()
    wait.unlink()
    gridder.ems("up", "e", "--retry")
    gridder.assert_whole()
    calls = gridder.calls()
    assert all(calls[point] == 1 for point in kept)
