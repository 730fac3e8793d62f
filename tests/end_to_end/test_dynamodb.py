"""A lab whose database is DynamoDB: the same commands."""

from __future__ import annotations

import json
from pathlib import Path

from ems.engine import install as engine
from ems.node.job.variables import job_environment
from tests.end_to_end.conftest import User, expected


def test_a_command_runs_and_its_rows_are_read(dynamodb_url: str, tmp_path: Path) -> None:
    engine.ensure()
    User(tmp_path).ems("init", "lab")
    somebody = User(tmp_path / "lab")
    somebody.write(
        "Pulumi.yaml", (somebody.root / "Pulumi.yaml").read_text().replace("sqlite:///.ems/ems.db", dynamodb_url)
    )
    somebody.experiment(rows=6)
    assert "no tables yet" in somebody.ems("status", expect=4).stderr
    somebody.ems("up", "lab", "e")
    shown = json.loads(somebody.ems("results", "e", "--format", "json").stdout)
    assert [(row["i"], row["value"]) for row in shown] == expected(6)
    assert len(json.loads(somebody.ems("results", "e", "--where", "i >= 4", "--format", "json").stdout)) == 2
    status = json.loads(somebody.ems("status", "--json").stdout)
    assert [(row["stack"], row["state"], row["attempt"]) for row in status] == [("e", "succeeded", 1)]
    assert "unchanged" in somebody.pulumi("up", "--yes", "--skip-preview", "--stack", "e")
    assert "nothing left" in somebody.ems("teardown", "--all", "--yes").stdout
    found = json.loads(somebody.ems("database", "check", "--json").stdout)
    assert (found["ok"], found["tables_version"]) == (True, 2)
    assert "create-table" in somebody.ems("database", "init", "--print").stdout
    somebody.end()


def test_a_job_is_not_handed_what_opens_the_database(tmp_path: Path) -> None:
    caller = {"AWS_PROFILE": "lab", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "HOME": "/home/me"}
    caller |= {"AWS_SESSION_TOKEN": "c", "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:1"}
    seen = job_environment(tmp_path, caller, threads=1, ems={}, own={})
    assert not [name for name in seen if name.startswith("AWS")]
    assert seen["HOME"] == "/home/me"
