"""The examples of docs/rounds.md, through the command line and the real engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.documentation import Page
from tests.end_to_end.conftest import User

ROOT = Path(__file__).parents[2]
PAGE = Page(ROOT / "docs/rounds.md")
BISECTION, TUNING = PAGE.blocks("python")
STACK, TUNING_KEYS, _ = map(yaml.safe_load, PAGE.blocks("yaml"))


class Proposing(User):
    """Works on a lab whose stack is one of the page's."""

    def study(self, stack: str, code: str, changes: dict | None = None) -> None:
        if not (self.root / "environments/optuna").exists():
            shutil.copytree(ROOT / "environments/optuna", self.root / "environments/optuna")
        described = {**STACK["config"]["ems:experiment"], **(changes or {})}
        described["code"] = {"paths": [f"experiments/{stack}"]}
        self.write(f"stacks/Pulumi.{stack}.yaml", json.dumps({"config": {"ems:experiment": described}}, indent=2))
        self.write(f"experiments/{stack}/study.py", code)
        self.commit("A study")

    def rounds(self, stack: str, *words: str, expect: int = 0) -> list[dict]:
        return list(json.loads(self.ems("rounds", stack, "--json", *words, expect=expect).stdout))


@pytest.fixture
def proposing(user: User) -> Proposing:
    return Proposing(user.root, user.started)


def test_bisection_of_a_threshold(proposing: Proposing) -> None:
    proposing.study("threshold", BISECTION)
    assert "threshold" in proposing.ems("check", "threshold").stdout
    done = proposing.ems("up", "threshold")
    assert "11 rounds, 12 points; experiments.threshold.study:halve proposed no more" in done.stdout + done.stderr
    seen = dict(proposing.query("SELECT x, seen FROM threshold"))
    assert len(seen) == 12 and min(x for x in seen if seen[x]) - max(x for x in seen if not seen[x]) <= 0.001
    again = proposing.ems("up", "threshold")
    assert "already" in (again.stdout + again.stderr) and len(proposing.query("SELECT * FROM run")) == 1
    replayed = proposing.rounds("threshold", "--replay")
    assert [each["round"] for each in replayed] == [*range(1, 13)]
    assert {(each["same_rows"], each["difference"]) for each in replayed[1:]} == {(True, "")}
    shown = json.loads(proposing.ems("status", "threshold", "--json").stdout)
    assert shown[0]["points_total"] == 12
    assert json.loads(proposing.ems("points", "threshold", "--json").stdout) == []


def test_what_comes_out_otherwise_is_told(proposing: Proposing) -> None:
    proposing.study(
        "threshold", BISECTION.replace("/ 2}", "/ 2 + os.getpid() * 1e-12}").replace("def m", "import os\n\n\ndef m", 1)
    )
    proposing.ems("up", "threshold")
    second = proposing.rounds("threshold", "--replay", expect=4)[1]
    assert second["same_rows"] and second["difference"].startswith("its point 1 is x=0.5")


def test_rounds_are_proposed_again_by_the_code_of_the_commit(proposing: Proposing) -> None:
    """Not by that of the working tree, which a relative PYTHONPATH would name where the command is typed."""
    job = {"function": "study:measure", "propose": "study:halve", "sweep": {"x": [0.0, 1.0]}}
    study = "experiments/threshold"
    proposing.study("threshold", BISECTION, {"job": job, "env": {"PYTHONPATH": study}, "limits": {"max_rounds": 3}})
    proposing.ems("up", "threshold")
    proposing.write(f"{study}/study.py", BISECTION.replace("(low + high) / 2", "0.25"))
    assert {each["difference"] for each in proposing.rounds("threshold", "--replay")[1:]} == {""}
    assert not (proposing.root / study / "__pycache__").exists()


def test_an_optimizer_that_asks_and_tells(proposing: Proposing) -> None:
    proposing.study("tuning", TUNING, {**TUNING_KEYS, "results": {"table": "tuning"}})
    done = proposing.ems("up", "tuning")
    assert "10 rounds, 40 points; round 11 would make it 44" in done.stdout + done.stderr
    ((points, best),) = proposing.query("SELECT count(*), min(loss) FROM tuning")
    assert points == 40 and best < 0.01
    assert {each["difference"] for each in proposing.rounds("tuning", "--replay")[1:]} == {""}
    proposing.study("tuning", TUNING, {**TUNING_KEYS, "limits": {"max_points": 44}, "results": {"table": "tuning"}})
    proposing.ems("up", "tuning")
    assert proposing.query("SELECT count(*), count(DISTINCT experiment_id) FROM tuning") == [(44, 1)]
