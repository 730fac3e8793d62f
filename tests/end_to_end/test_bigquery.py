"""A lab whose database is BigQuery, by its emulator: the same commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from ems.engine import install as engine
from ems.node.job.variables import job_environment
from tests.end_to_end.conftest import User, expected
from tests.end_to_end.test_sweeps import Sweeper

A_BEAT_S = 60.0


@pytest.fixture
def analyst(bigquery_url: str, tmp_path: Path) -> Iterator[Sweeper]:
    engine.ensure()
    User(tmp_path).ems("init", "lab")
    somebody = Sweeper(tmp_path / "lab")
    written = (somebody.root / "Pulumi.yaml").read_text().replace("sqlite:///.ems/ems.db", bigquery_url)
    somebody.write("Pulumi.yaml", written)
    yield somebody
    somebody.end()


def rows(somebody: User, *words: str) -> list[dict[str, float]]:
    return list(json.loads(somebody.ems("results", "e", "--format", "json", *words).stdout))


def status(somebody: User) -> tuple[str, int, int]:
    (row,) = json.loads(somebody.ems("status", "--json").stdout)
    return row["state"], row["attempt"], row["machines_left"]


def took_s(somebody: User) -> float:
    (row,) = json.loads(somebody.ems("status", "--json").stdout)
    return (datetime.fromisoformat(row["finished_at"]) - datetime.fromisoformat(row["started_at"])).total_seconds()


def test_a_command_runs_and_its_rows_are_read(analyst: Sweeper) -> None:
    analyst.experiment(rows=6)
    assert "no tables yet" in analyst.ems("status", expect=4).stderr
    analyst.ems("up", "lab", "e")
    assert took_s(analyst) < A_BEAT_S  # the end is not heard by a beat
    assert [(row["i"], row["value"]) for row in rows(analyst)] == expected(6)
    assert len(analyst.ems("results", "e", "--where", "i >= 4", "--format", "csv").stdout.splitlines()) == 3
    assert "unchanged" in analyst.pulumi("up", "--yes", "--skip-preview", "--stack", "e")
    assert "nothing left" in analyst.ems("teardown", "--all", "--yes").stdout
    found = json.loads(analyst.ems("database", "check", "--json").stdout)
    assert (found["ok"], found["tables_version"]) == (True, found["needed_version"])
    assert "roles/bigquery.dataEditor" in analyst.ems("database", "init", "--print").stdout
    assert status(analyst) == ("succeeded", 1, 0)


def test_a_job_is_not_handed_what_opens_the_database(tmp_path: Path) -> None:
    secrets = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GOOGLE_API_KEY", "GCLOUD_PROJECT")
    others = ("CLOUDSDK_CONFIG", "CLOUDSDK_AUTH_ACCESS_TOKEN", "BIGQUERY_EMULATOR_HOST", "GCE_METADATA_HOST")
    caller = {**dict.fromkeys((*secrets, *others), "secret"), "HOME": "/home/me"}
    seen = job_environment(tmp_path, caller, threads=1, ems={}, own={})
    assert "secret" not in seen.values()
    assert seen["HOME"] == "/home/me"
