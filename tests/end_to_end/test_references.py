"""Experiments that refer to a persistent place, or to code in another repository."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.end_to_end.conftest import JOB, User, expected


def _edit(user: User, **changes: object) -> None:
    path = user.root / "stacks/Pulumi.e.yaml"
    described = json.loads(path.read_text())
    described["config"]["ems:experiment"] |= changes
    path.write_text(json.dumps(described))
    user.commit("Change the stack file")


def test_a_persistent_place_is_registered_and_used_by_name(user: User) -> None:
    user.experiment()
    _edit(user, cluster={"stack": "box"})
    done = user.ems("up", "e", expect=2)
    assert "box" in done.stderr
    user.write("stacks/Pulumi.box.yaml", json.dumps({"config": {"ems:cluster": {"kind": "laptop", "title": "A box"}}}))
    user.commit("A place")
    user.ems("check")
    user.ems("up")  # all stacks, each after those it needs
    assert user.rows() == expected(6)
    assert user.query("SELECT cluster FROM experiment WHERE stack = 'e'") == [("box",)]
    assert user.query("SELECT id, kind FROM cluster") == [("box", "laptop")]


def test_code_of_another_repository_runs_at_its_commit(user: User, tmp_path: Path) -> None:
    other = User(tmp_path / "other")
    other.root.mkdir()
    subprocess.run(["git", "init", "-q", str(other.root)], check=True)
    other.write("src/job.py", JOB)
    other.commit("Code")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=other.root, check=True, capture_output=True, text=True
    ).stdout.strip()
    other.write("src/job.py", "raise SystemExit('newer code')")
    other.commit("Newer code")
    user.experiment()
    job = {"command": ["python", "src/job.py"], "parameters": {"rows": 6, "pause_s": 0, "trouble": ""}}
    _edit(user, code={"repo": other.root.as_uri(), "commit": commit, "paths": ["src"]}, job=job)
    user.ems("up", "e")
    assert user.rows() == expected(6)
    assert user.query('SELECT repository, "commit" FROM experiment') == [(other.root.as_uri(), commit)]
