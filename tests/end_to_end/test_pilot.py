"""A random sample of a sweep first, then the rest, through the command line and the real engine."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests import tally
from tests.end_to_end.conftest import User
from tests.end_to_end.test_sweeps import CODE, POINTS, Sweeper

# While `.ems/wait` is there, the calls after the sixth one do not end: which points they are differs from run to run.
HELD_LATER = CODE.replace("while a == 2 and", "while open(notes / 'calls').read().count('\\n') > 6 and")


@pytest.fixture
def sweeper(user: User) -> Sweeper:
    somebody = Sweeper(user.root, user.started)
    somebody.sweep(HELD_LATER)
    return somebody


def test_a_pilot_is_killed_goes_on_is_shown_and_the_rest_follows(sweeper: Sweeper) -> None:
    trouble, waiting = sweeper.note("trouble"), sweeper.note("wait")
    up = sweeper.start("up", "e", "--pilot", "30%")
    sweeper.wait(sweeper.stored)
    for process in (up, *sweeper.updates(), *sweeper.agents()):
        process.kill()
    up.wait()
    sweeper.wait(lambda: not sweeper.processes())
    kept = sweeper.kept()
    waiting.unlink()
    (found,) = json.loads(sweeper.ems("up", "e", "--pilot", "30%", "--json").stdout)
    assert (found["state"], found["points_total"], found["points_left"]) == ("piloted", 60, 42)
    assert found["points_done"] + found["points_failed"] == 18
    first = sweeper.calls()
    assert len(first) == 18 and all(first[point] == 1 for point in kept)
    assert {a for a, _ in first} == {1, 2} and max(x for _, x in first) - min(x for _, x in first) > 10
    assert found["measured"]["workers"] == 2 and 5 < found["measured"]["memory_mb"] < 5000
    assert found["point_s"] >= 0.03 and found["places"][0]["place"] == "laptop"
    assert found["hours_left"] == pytest.approx(42 * found["point_s"] / 2 / 3600)
    _is_released_and_known(sweeper)
    _is_shown_again_and_grows(sweeper, first)
    trouble.unlink()
    _goes_on(sweeper)


def _is_released_and_known(sweeper: Sweeper) -> None:
    assert "ems:index:Laptop" not in sweeper.resources()
    (status,) = json.loads(sweeper.ems("status", "e", "--json").stdout)
    assert (status["state"], status["machines_left"], status["cluster_declared"]) == ("piloted", 0, False)
    assert "Compute the rest: ems up e" in sweeper.ems("status", "e").stdout
    assert "piloted" in sweeper.ems("watch", "e").stdout
    sweeper.ems("check", "e")
    sweeper.ems("teardown", "e", "--yes")
    assert sweeper.state() == "piloted"


def _is_shown_again_and_grows(sweeper: Sweeper, first: Counter[tuple[int, ...]]) -> None:
    shown = sweeper.ems("up", "e", "--pilot", "10").stdout
    assert "the rest  42 points" in shown and "laptop, 2 workers: " in shown and "MB at most" in shown
    assert sweeper.calls() == first
    (larger,) = json.loads(sweeper.ems("up", "e", "--pilot", "20", "--json").stdout)
    assert larger["points_left"] == 40 and len(sweeper.calls()) == 20


def _goes_on(sweeper: Sweeper) -> None:
    """A plain `up` computes the rest and nothing twice; what failed in the pilot stays so until a retry."""
    failed = [point for (point,) in sweeper.query("SELECT point FROM point WHERE state = 'failed' ORDER BY point")]
    before = sweeper.calls()
    sweeper.ems("up", "e", expect=6 if failed else 0)
    assert sweeper.calls() - before == Counter(point for point in POINTS if point not in before)
    assert sweeper.query("SELECT wanted_attempt FROM experiment") == [(1,)]
    if failed:
        assert sweeper.counters() == ("failed", 60 - len(failed), len(failed), 0)
        sweeper.ems("up", "e", "--retry")
    rows = sweeper.query("SELECT a, x, value FROM e ORDER BY point, row")
    tally.compare(rows, [(a, x, a + x / 7) for a, x in POINTS], key=2)
    assert sweeper.counters() == ("succeeded", 60, 0, 0)
    assert "already computed" in sweeper.ems("up", "e").stdout
    (done,) = json.loads(sweeper.ems("up", "e", "--pilot", "5", "--json").stdout)
    assert (done["state"], done["points_left"]) == ("succeeded", 0)
    sweeper.assert_nothing_left()


def test_a_command_has_no_pilot_and_a_sample_is_a_number_or_a_share(user: User) -> None:
    user.experiment()
    assert "nothing to take a sample of" in user.ems("up", "e", "--pilot", "5", expect=2).stderr
    for wrong in ("0", "-3", "0%", "101%", "some", "1.5"):
        assert "Allowed is a number of points" in user.ems("up", "e", f"--pilot={wrong}", expect=2).stderr
    assert user.query("SELECT count(*) FROM experiment") == [(0,)]
