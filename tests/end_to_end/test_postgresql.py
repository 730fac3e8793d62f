"""A lab whose database is PostgreSQL: the same commands, and what reads it without EMS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ems.engine import install as engine
from ems.node.job.variables import job_environment
from tests.end_to_end.conftest import User, expected
from tests.end_to_end.test_sweeps import POINTS, Sweeper

READ_IN_R = """
con <- DBI::dbConnect(RPostgreSQL::PostgreSQL(), dbname = "{name}", host = "127.0.0.1", port = {port}, user = "{user}")
rows <- DBI::dbGetQuery(con, "SELECT i, value FROM e ORDER BY point, row")
stopifnot(is.numeric(rows$i), is.double(rows$value))
cat(sprintf("%d %.17g\\n", as.integer(rows$i), rows$value), sep = "")
"""
READ_IN_PYTHON = "import ems; [print(row.i, row.value) for row in ems.results('e', where=['i >= 4']).itertuples()]"


class Colleague(Sweeper):
    url: str

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def colleague(postgresql_url: str, tmp_path: Path) -> Any:
    engine.ensure()
    User(tmp_path).ems("init", "lab")
    somebody = Colleague(tmp_path / "lab")
    somebody.url = postgresql_url
    written = (somebody.root / "Pulumi.yaml").read_text().replace("sqlite:///.ems/ems.db", postgresql_url)
    assert postgresql_url in written
    somebody.write("Pulumi.yaml", written)
    somebody.commit("Another database")
    somebody.ems("up", "lab")
    yield somebody
    somebody.end()


def test_a_command_runs_and_its_rows_are_read_from_everywhere(colleague: Colleague) -> None:
    colleague.experiment(rows=6)
    colleague.ems("up", "e")
    colleague.assert_undisturbed(rows=6)
    status = json.loads(colleague.ems("status", "--json").stdout)
    assert [(row["stack"], row["state"]) for row in status] == [("e", "succeeded")]
    assert len(colleague.ems("results", "e", "--format", "csv").stdout.splitlines()) == 7
    assert "unchanged" in colleague.pulumi("up", "--yes", "--skip-preview", "--stack", "e")
    assert colleague.query("SELECT count(*) FROM run") == [(1,)]
    known = psycopg.conninfo.conninfo_to_dict(colleague.url)
    in_r = READ_IN_R.format(name=known["dbname"], port=known["port"], user=known["user"])
    for command, rows in (([sys.executable, "-c", READ_IN_PYTHON], [4, 5]), (["Rscript", "-e", in_r], range(6))):
        shown = subprocess.run(command, cwd=colleague.root, check=True, capture_output=True, text=True).stdout
        found = [(int(i), float(value)) for i, value in map(str.split, shown.splitlines())]
        assert found == [expected(6)[row] for row in rows]


def test_a_sweep_runs(colleague: Colleague) -> None:
    colleague.sweep()
    colleague.ems("up", "e")
    colleague.assert_whole()
    assert colleague.points() == POINTS


def test_a_job_is_not_handed_what_opens_the_database(tmp_path: Path) -> None:
    caller = {"PGPASSFILE": "/p", "PGSERVICEFILE": "/s", "PGPASSWORD": "x", "PGUSER": "me", "HOME": "/home/me"}
    caller |= {
        "GOOGLE_APPLICATION_CREDENTIALS": "/g",
        "CLOUDSDK_CONFIG": "/c",
        "GCE_METADATA_HOST": "m",
        "AWS_PROFILE": "l",
    }
    seen = job_environment(tmp_path, caller, threads=1, ems={}, own={})
    assert not [name for name in seen if name.startswith(("PG", "GOOGLE_", "CLOUDSDK_", "GCE_", "AWS_"))]
    assert seen["HOME"] == "/home/me"


def test_commands_about_the_database(colleague: Colleague) -> None:
    found = json.loads(colleague.ems("database", "check", "--json").stdout)
    assert (found["ok"], found["role"], found["database"]) == (True, "ems", colleague.url)
    assert set(found) >= {"service", "may", "tables_version", "needed_version", "latency_s", "clock_ahead_s", "faults"}
    printed = colleague.ems("database", "init", "--print").stdout
    assert "CREATE TABLE IF NOT EXISTS experiment " in printed and "lab_agent" in printed
    assert colleague.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE current_database() || '\\_%'") == [(0,)]
    assert json.loads(colleague.ems("database", "init", "--json").stdout)["done"] is True
    name = psycopg.conninfo.conninfo_to_dict(colleague.url)["dbname"]
    roles = colleague.query("SELECT rolname FROM pg_roles WHERE rolname LIKE current_database() || '\\_%' ORDER BY 1")
    assert roles == [(f"{name}_agent",), (f"{name}_owner",), (f"{name}_reader",)]
    shown = colleague.ems("database", "check").stdout
    assert "may       read, run experiments, describe the lab, change tables" in shown


def test_a_password_in_the_url_goes_nowhere(user: User) -> None:
    file = user.root / "Pulumi.yaml"
    file.write_text(file.read_text().replace("sqlite:///.ems/ems.db", "postgresql://me:s3cret@127.0.0.1/lab"))
    for words in (["up", "pi"], ["status"], ["database", "check"], ["doctor"]):
        said = user.ems(*words, expect=None)
        assert said.returncode != 0 and "pgpass" in said.stdout + said.stderr
        assert "s3cret" not in said.stdout + said.stderr
