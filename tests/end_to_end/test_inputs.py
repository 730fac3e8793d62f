"""Files that a command and the workers of a sweep read, through the command line and the real engine."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from tests.end_to_end.conftest import User

ROOT = Path(__file__).parents[2]
COMMAND = """
import os, pathlib
folder = pathlib.Path(os.environ["EMS_INPUT_DIR"])
(file,) = folder.iterdir()
mode = f"{folder.stat().st_mode:o} {file.stat().st_mode:o}"
with open(os.path.join(os.environ["EMS_RESULTS_DIR"], "rows.csv"), "w") as rows:
    rows.write(f"name,content,mode\\n{file.name},{file.read_text()},{mode}\\n")
"""
FUNCTION = """
import os, pathlib

def f(x):
    return {"content": pathlib.Path(os.environ["EMS_INPUT_DIR"], "rates.csv").read_text() + str(x)}
"""


def stack(user: User, name: str, environment: str, job: object, content: str) -> None:
    digest = hashlib.sha256(content.encode()).hexdigest()
    described = {
        "project": "first",
        "experimenter": "me",
        "funding": "unfunded",
        "code": {"paths": ["experiments/e"]},
        "environment": environment,
        "job": job,
        "inputs": {"rates.csv": {"url": "data/rates.csv", "sha256": digest}},
        "results": {"table": name},
        "cluster": {"kind": "laptop", "workers": 1},
    }
    user.write(f"stacks/Pulumi.{name}.yaml", json.dumps({"config": {"ems:experiment": described}}, indent=2))


def test_jobs_read_the_files_that_were_meant_and_no_others(user: User) -> None:
    shutil.copytree(ROOT / "environments/svd", user.root / "environments/svd")
    user.write(".gitignore", ".ems/\n/data/\n")
    user.write("experiments/e/command.py", COMMAND)
    user.write("experiments/e/sweep.py", FUNCTION)
    user.write("data/rates.csv", "old")
    command = {"command": ["python", "experiments/e/command.py"]}
    stack(user, "e", "pi", command, "old")
    stack(user, "s", "svd", {"function": "experiments.e.sweep:f", "sweep": {"x": [1, 2]}}, "old")
    user.commit("Two experiments")
    user.ems("up", "e", "s")
    assert user.query("SELECT name, content, mode FROM e") == [("rates.csv", "old", "40555 100444")]
    assert user.query("SELECT content FROM s ORDER BY point") == [("old1",), ("old2",)]
    assert not list((user.root / ".ems/runs").glob("*/inputs"))

    (user.root / "data/rates.csv").unlink()
    user.ems("check", "e")
    assert "already computed" in user.ems("up", "e").stdout
    user.write("data/rates.csv", "new")
    for words in (("check", "e"), ("up", "e")):
        done = user.ems(*words, expect=2)
        said = done.stdout + done.stderr
        assert all(hashlib.sha256(content).hexdigest() in said for content in (b"old", b"new"))
        assert "Pulumi.e.yaml:" in said and "write the new digest" in said
    said = user.pulumi("up", "--yes", "--skip-preview", "--stack", "e", expect=None)
    assert hashlib.sha256(b"new").hexdigest() in said and "error" in said

    stack(user, "e", "pi", command, "new")
    user.commit("The new file is meant")
    user.ems("up", "e")
    assert sorted(user.query("SELECT content FROM e")) == [("new",), ("old",)]
    assert user.query("SELECT state, count(*) FROM experiment WHERE stack = 'e' GROUP BY state") == [("succeeded", 2)]
