"""What `ems up` and plain `pulumi up` do to one experiment, on the real engine."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ems.cli import scaffold
from tests.end_to_end.conftest import User, expected
from tests.processes import PATIENCE_S

RECORDS = Path(__file__).parents[1] / "records"
CLUSTER, RUN, EXPERIMENT = "ems:index:Laptop", "ems:index:Run", "ems:index:Experiment"


def test_a_run_stores_its_rows_lets_its_cluster_go_and_never_runs_again(user: User) -> None:
    user.experiment(rows=50)
    user.ems("up", "e")
    assert user.rows() == expected(50)
    assert (user.root / ".ems").stat().st_mode & 0o077 == 0  # records, logs and orders are the owner's alone
    assert {EXPERIMENT, RUN} <= set(user.resources()) and CLUSTER not in user.resources()
    shown = user.pulumi("up", "--yes", "--skip-preview", "--stack", "e")
    assert "unchanged" in shown and "created" not in shown and "deleted" not in shown
    assert user.query("SELECT count(*), max(attempt) FROM run") == [(1, 1)]
    assert not user.agents()


def test_plain_pulumi_up_runs_and_the_next_one_lets_the_cluster_go(user: User) -> None:
    user.experiment()
    user.pulumi("stack", "init", "e")
    user.pulumi("up", "--yes", "--skip-preview", "--stack", "e")
    assert user.rows() == expected(6) and CLUSTER in user.resources()
    assert user.query("SELECT machines FROM experiment") == [(0,)]
    user.pulumi("up", "--yes", "--skip-preview", "--stack", "e")
    assert CLUSTER not in user.resources()
    assert user.query("SELECT count(*) FROM run") == [(1,)]


def test_preview_writes_nothing(user: User) -> None:
    user.experiment()
    user.pulumi("stack", "init", "e")
    before = (user.root / ".ems/ems.db").read_bytes()
    shown = user.pulumi("preview", "--stack", "e", "--diff")
    assert "ems:index:Laptop" in shown and "commit" in shown and "experiments/e/job.py" in shown
    assert (user.root / ".ems/ems.db").read_bytes() == before
    assert not (user.root / ".ems/runs").exists()


def test_a_registry_that_cannot_be_read_is_an_error(user: User) -> None:
    user.experiment()
    user.pulumi("stack", "init", "e")
    shutil.rmtree(user.root / ".ems")
    user.pulumi("stack", "init", "e", expect=None)
    shown = user.fails("preview", "--stack", "e")
    assert "no tables yet" in shown and "ems up lab" in shown and "Traceback" not in shown
    assert not (user.root / ".ems/ems.db").exists()


@pytest.mark.usefixtures("either_engine")
def test_a_failed_job_fails_once_and_retry_goes_on(user: User) -> None:
    trouble = user.root / ".ems/trouble"
    trouble.touch()
    user.experiment(trouble=str(trouble))
    user.pulumi("stack", "init", "e")
    shown = user.fails("up", "--yes", "--skip-preview", "--stack", "e")
    assert "exit code 1" in shown and "in trouble" in shown and "Traceback" not in shown
    assert user.state() == "failed"
    user.pulumi("up", "--yes", "--skip-preview", "--stack", "e")  # clean state: it only deletes
    assert CLUSTER not in user.resources()
    trouble.unlink()
    done = user.ems("up", "e", expect=6)  # finished is finished
    assert "--retry" in done.stderr
    user.ems("up", "e", "--retry")
    assert user.rows() == expected(6) and user.state() == "succeeded"
    assert user.query("SELECT attempt, state FROM run ORDER BY attempt") == [(1, "failed"), (2, "succeeded")]


def test_a_reviewed_attempt_goes_on(user: User) -> None:
    trouble = user.root / ".ems/trouble"
    trouble.touch()
    user.experiment(trouble=str(trouble))
    user.ems("up", "e", expect=6)
    trouble.unlink()
    path = user.root / "stacks/Pulumi.e.yaml"
    text = path.read_text().replace('"environment":', '"attempt": 2,\n"environment":')
    path.write_text(text)
    user.commit("Go on")
    user.ems("up", "e")
    assert user.rows() == expected(6)
    assert user.query("SELECT count(*) FROM experiment") == [(1,)]


def test_detach_then_plain_up_attaches(user: User) -> None:
    user.experiment(rows=50, pause_s=0.3)
    user.ems("up", "e", "--detach")
    assert user.state() == "running"
    user.pulumi("up", "--yes", "--skip-preview", "--stack", "e")
    assert user.state() == "succeeded" and user.rows() == expected(50)
    assert user.query("SELECT count(*) FROM run") == [(1,)]


def test_refresh_in_mid_run_then_up_attaches(user: User) -> None:
    user.experiment(rows=30, pause_s=0.4)
    user.ems("up", "e", "--detach")
    user.pulumi("refresh", "--yes", "--skip-preview", "--stack", "e")
    assert {EXPERIMENT, RUN, CLUSTER} <= set(user.resources())
    user.ems("up", "e")
    assert user.rows() == expected(30)
    user.pulumi("refresh", "--yes", "--skip-preview", "--stack", "e")
    assert user.query("SELECT count(*) FROM run") == [(1,)]


def test_a_second_up_attaches(user: User) -> None:
    user.experiment(rows=40, pause_s=0.3)
    first = user.start("up", "e")
    user.wait(lambda: user.stored() > 2)
    user.ems("up", "e")
    assert user.rows() == expected(40)
    assert first.wait(PATIENCE_S) == 0
    assert user.query("SELECT count(*) FROM run") == [(1,)]


def test_what_runs_is_the_commit_not_the_working_tree(user: User) -> None:
    user.experiment(rows=12, pause_s=0.3)
    user.ems("up", "e", "--detach")
    user.write("experiments/e/job.py", "raise SystemExit('edited')")
    user.wait(lambda: user.state() == "succeeded")
    assert user.rows() == expected(12)
    assert "ended runs still declare: e. Release: ems teardown e" in user.ems("status").stdout
    assert json.loads(user.ems("status", "--json").stdout)[0]["cluster_declared"] is True
    done = user.ems("up", "e", expect=3)
    assert "experiments/e/job.py" in done.stderr and "git commit" in done.stderr


def test_an_environment_that_cannot_be_built_is_told_before_anything_is_made(user: User) -> None:
    user.experiment()
    lock = user.root / "environments/pi/requirements.txt"
    right = lock.read_text()
    lock.write_text(f"{right}\ntabulate==0.9.0 --hash=sha256:{'0' * 64}\n")
    user.commit("A hash that no file has")
    done = user.ems("up", "e", expect=3)
    assert "packages of environment 'pi' cannot be installed" in done.stderr and "0" * 64 in done.stderr
    assert user.query("SELECT count(*) FROM experiment") == [(0,)] and "e" not in user.pulumi("stack", "ls").split()
    lock.write_text(right)
    user.commit("The right lock again")
    user.ems("up", "e")
    assert user.rows() == expected(6)


def test_an_edited_readme_runs_nothing_and_changed_code_does(user: User) -> None:
    user.experiment()
    user.ems("up", "e")
    user.write("README.md", "Edited")
    user.commit("Edit the README")
    shown = user.pulumi("preview", "--stack", "e")
    assert "unchanged" in shown and "create" not in shown
    user.write("experiments/e/note.txt", "code, as it is declared")
    user.commit("Change the code")
    shown = user.pulumi("preview", "--stack", "e", "--diff")
    assert "replace" in shown and "experiment_id" in shown
    user.ems("up", "e")
    assert user.query("SELECT count(*) FROM experiment") == [(2,)]
    assert user.query("SELECT count(*) FROM experiment WHERE destroyed_at IS NOT NULL") == [(1,)]


def test_tables_of_an_older_version_are_brought_up_to_date_by_the_lab(user: User) -> None:
    (user.root / ".ems/ems.db").unlink()
    with closing(sqlite3.connect(user.root / ".ems/ems.db")) as connection:
        connection.executescript((RECORDS / "database_version_1.sql").read_text())
    refused = user.ems("status", expect=4)
    assert "version 1" in refused.stderr and "ems up lab" in refused.stderr
    user.ems("up", "lab")  # no row of it has changed since the tables were made
    user.ems("status")


def test_destroy_leaves_the_records_marked(user: User) -> None:
    user.experiment()
    user.ems("up", "e")
    user.pulumi("destroy", "--yes", "--skip-preview", "--stack", "e")
    assert user.resources() == []
    assert user.rows() == expected(6) and user.state() == "succeeded"
    assert user.query("SELECT destroyed_at IS NOT NULL FROM experiment") == [(1,)]
    user.ems("up", "e")
    assert user.query("SELECT destroyed_at IS NULL, attempt FROM experiment") == [(1, 1)]


def test_destroy_in_mid_run_stops_it(user: User) -> None:
    user.experiment(rows=600, pause_s=0.3)
    user.ems("up", "e", "--detach")
    user.wait(lambda: user.stored() > 0)
    user.pulumi("destroy", "--yes", "--skip-preview", "--stack", "e")
    assert user.state() == "cancelled"
    user.wait(lambda: not user.agents())
    assert user.rows() == expected(len(user.rows())) and user.rows()


def test_unknown_references_are_refused_before_anything_is_made(user: User) -> None:
    user.experiment()
    path = user.root / "stacks/Pulumi.e.yaml"
    path.write_text(path.read_text().replace('"first"', '"frist"').replace('"unfunded"', '"nobody"'))
    user.commit("Name what does not exist")
    done = user.ems("up", "e", expect=2)
    assert "frist" in done.stderr and "first" in done.stderr and "nobody" in done.stderr
    user.pulumi("stack", "init", "e")
    shown = user.fails("preview", "--stack", "e")
    assert "frist" in shown and "Traceback" not in shown


def test_the_schema_is_served(user: User) -> None:
    shown = json.loads(user.pulumi("package", "get-schema", "./plugins/pulumi-resource-ems"))
    assert {EXPERIMENT, RUN, CLUSTER} <= set(shown["resources"])
    assert "commit" in shown["resources"][EXPERIMENT]["properties"]


def test_raised_hours_resume_the_same_experiment(user: User) -> None:
    user.experiment(rows=40, pause_s=0.25, limits={"max_hours": 4 / 3600})
    done = user.ems("up", "e", expect=6)
    assert "max_hours" in done.stderr
    stored = len(user.rows())
    assert 0 < stored < 40
    user.experiment(rows=40, pause_s=0.25, limits={"max_hours": 1})
    user.ems("up", "e")
    assert user.rows() == expected(40) and user.query("SELECT count(*) FROM experiment") == [(1,)]


def test_code_without_declared_paths_is_the_same_whatever_is_not_of_the_experiment(user: User) -> None:
    user.experiment()
    described = json.loads((user.root / "stacks/Pulumi.e.yaml").read_text())
    del described["config"]["ems:experiment"]["code"]
    user.write("stacks/Pulumi.e.yaml", json.dumps(described))
    user.commit("All of the code")
    user.ems("up", "e")
    user.write("LICENSE", "Mine.\n")
    user.write("environments/other/python-version", "3.11\n")
    user.write(".gitignore", ".ems/\n.venv/\n__pycache__/\n*.tmp\n")
    user.commit("Nothing of it")
    user.ems("up", "e")
    assert user.query("SELECT state, attempt FROM experiment WHERE stack = 'e'") == [("succeeded", 1)]


def test_the_first_up_in_a_new_lab_registers_the_lab_first_and_later_ones_what_is_new(tmp_path: Path) -> None:
    scaffold.init(tmp_path / "lab")
    user = User(tmp_path / "lab")
    try:
        user.write("experiments/pi/more.py", "")
        refused = user.ems("up", "pi", expect=3).stderr
        assert "Not as in the last commit" in refused and "registered first" not in refused
        user.commit("More")
        shown = user.ems("up", "pi").stderr
        assert "registered first: ems up lab" in shown
        assert user.query("SELECT state FROM experiment") == [("succeeded",)]
        lab = (user.root / "stacks/Pulumi.lab.yaml").read_text()
        user.write("stacks/Pulumi.lab.yaml", lab.replace("    funding:", "      second: {title: Second}\n    funding:"))
        stack = (user.root / "stacks/Pulumi.pi.yaml").read_text()
        user.write("stacks/Pulumi.pi.yaml", stack.replace("project: first", "project: second"))
        user.commit("Another project")
        assert "registered first: ems up lab" in user.ems("up", "pi").stderr
        assert "registered first" not in user.ems("up", "pi").stderr
        assert user.query("SELECT project FROM experiment") == [("second",)]
    finally:
        user.end()
