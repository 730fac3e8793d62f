"""What a job is given are the numbers that people wrote, whatever Pulumi makes of them on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import User

ROOT = Path(__file__).parents[2]
STACK = """# Numbers with a point are doubles.
config:
  ems:experiment:
    project: first
    experimenter: me
    funding: unfunded
    code: {paths: [experiments/e]}
    environment: svd
    results: {table: e}

    job:
"""
SWEEP = """      function: experiments.e.job:f
      sweep:
        - {theta: [100.0, 1000.0], n: {range: [0, 2, 1]}, seed: {count: 2}}
        - {theta: [1000.0, 1e4], n: [1, 5], seed: {count: 3}}
"""
COMMAND = """      command: [python, experiments/e/job.py, 0.10, 1e-3, -1, 2.0, "x"]
      parameters: {x: 2.0, y: [1e3, 3, 0.5], n: 7}
"""
CODE = """
import json, os, sys
from pathlib import Path

def f(theta, n, seed):
    return {"types": type(theta).__name__ + type(n).__name__, "large": (theta ** 8) // 1, "small": seed < 2**31}

if __name__ == "__main__":
    given = json.loads(Path(os.environ["EMS_PARAMETERS"]).read_text())
    row = {"given": json.dumps(given), "words": json.dumps(sys.argv[1:])}
    Path(os.environ["EMS_RESULTS_DIR"], "rows.jsonl").write_text(json.dumps(row) + "\\n")
"""


@pytest.fixture
def lab(user: User) -> User:
    shutil.copytree(ROOT / "environments/svd", user.root / "environments/svd")
    user.write("experiments/e/job.py", CODE)
    return user


def describe(lab: User, job: str) -> None:
    lab.write("stacks/Pulumi.e.yaml", STACK + job)
    lab.commit("An experiment")


def test_a_sweep_has_each_point_once_with_doubles_where_a_point_is_written(lab: User) -> None:
    describe(lab, SWEEP)
    said = lab.ems("check", "e").stdout
    assert "22 points: 2 that several grids have are counted once" in said
    lab.pulumi("stack", "init", "e")
    lab.commit("As Pulumi wrote it")
    assert "several grids of the sweep have 2 points in common" in lab.pulumi("preview", "--stack", "e")
    lab.pulumi("stack", "rm", "--yes", "--preserve-config", "e")
    describe(lab, SWEEP)
    lab.ems("up", "e")
    rows = lab.query("SELECT theta, n, seed, types, large, small FROM e ORDER BY point")
    assert len(rows) == len({row[:3] for row in rows}) == 22
    assert {row[3] for row in rows} == {"floatint"}
    assert {row[0]: row[4] for row in rows} == {100.0: 1e16, 1000.0: 1e24, 1e4: 1e32}
    assert all(row[5] for row in rows)
    text = (lab.root / "stacks/Pulumi.e.yaml").read_text()
    assert text.startswith(STACK + SWEEP + "encryptionsalt: v1:")
    lab.commit("With Pulumi's key")
    lab.ems("up", "e")
    assert lab.query("SELECT count(*) FROM run") == [(1,)]


@pytest.mark.parametrize("committed", [False, True])
def test_a_command_is_given_doubles_after_plain_pulumi_has_rewritten_its_file(lab: User, committed: bool) -> None:
    describe(lab, COMMAND)
    lab.pulumi("stack", "init", "e")
    file = lab.root / "stacks/Pulumi.e.yaml"
    written = yaml.safe_load(file.read_text())["config"]["ems:experiment"]["job"]["parameters"]
    assert type(written["x"]) is int, "Pulumi keeps points now: less is to be done"
    if committed:
        lab.commit("As Pulumi wrote it")
    lab.pulumi("up", "--yes", "--stack", "e")
    ((given, words),) = lab.query("SELECT given, words FROM e")
    assert json.loads(words) == ["0.10", "1e-3", "-1", "2.0", "x"]
    assert given == json.dumps({"n": 7, "x": 2.0, "y": [1000.0, 3, 0.5]})
