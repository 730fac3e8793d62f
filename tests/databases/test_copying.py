"""A lab moves between real databases and stays the same."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ems.base.errors import DatabaseError, UserError
from ems.cli import app as cli
from ems.databases import Database, Outcome, Project, State, connect, copying
from ems.lab import Lab
from ems.spool.batch import Column
from tests.conftest import ran
from tests.databases.cases import batch, claimed, empty, failed, fill_lab, floats, ints, table, texts

VECTOR = [Column(f"v{n:03}", "float64", [n / 7, -n / 3]) for n in range(1000)]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Database]:
    """A lab with a tree of projects, several experiments in two tables, failed, empty and copied points."""
    with closing(connect("sqlite:///full.db", tmp_path)) as database:
        database.create()
        database.upsert(Project("a-part", "Zuerst", None))
        fill_lab(database)
        database.upsert(Project("z", "Above"))
        database.upsert(Project("a-part", "Below", "z"))
        first = claimed(database, id="first", max_hours=2.5)
        values = ints("n", 2**63 - 1, -(2**63)), floats("x", -0.0, 1e308), texts("t", "é\n'\"", None)
        truth = Column("ok", "bool", [True, None])
        database.store(first, batch([0, 7], *values, truth, marks=(failed(1, a=1.5), empty(2, a="é"))))
        database.describe(first, '{"cpu": "é"}')
        database.release(first, Outcome(State.FAILED, 3, 1, exit_code=3, error="no", log_tail="end", cost_usd=0.25))
        second = claimed(database, id="second", project="a-part", results_table="wide")
        database.store(second, batch([0, 1], *VECTOR))
        database.copy_points(second, "first", [(7, 3), (2, 4)])
        database.release(second, Outcome(State.SUCCEEDED, 4, 0))
        database.release(claimed(database, id="third"), Outcome(State.CANCELLED, 0, 0))
        yield database


def everything(database: Database) -> list[object]:
    registry = {name: sorted(map(repr, database.rows(name))) for name in copying.TABLES}
    return [registry, *(table(database, each.id) for each in database.experiments())]


def silent(_: str) -> None:
    """Nobody watches."""


def test_to_postgresql_and_back_all_stays_the_same(full: Database, postgresql_url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        there = stack.enter_context(closing(connect(postgresql_url, tmp_path)))
        back = stack.enter_context(closing(connect("sqlite:///back.db", tmp_path)))
        compared = copying.copy(full, there, silent)
        assert all(each.same for each in compared)
        rows = {each.name: each.rows for each in compared}
        assert (rows["project"], rows["experiment"], rows["point"], rows["copied"]) == (3, 3, 3, 2)
        assert rows["results of digits, first"] == 2
        assert table(there, "second") == table(full, "second")
        assert [found.platform for found in there.experiments()] == [found.platform for found in full.experiments()]
        assert [found.state for found in there.experiments()] == [found.state for found in full.experiments()]
        assert all(each.same for each in copying.copy(there, back, silent))
        assert everything(back) == everything(full)


def test_a_copy_may_be_repeated_and_tells_what_differs(full: Database, tmp_path: Path) -> None:
    with closing(connect("sqlite:///there.db", tmp_path)) as there:
        copying.copy(full, there, silent)
        with closing(sqlite3.connect(tmp_path / "there.db", isolation_level=None)) as other:
            other.execute("UPDATE digits SET x = x + 1e292 WHERE point = 7")
            other.execute("UPDATE project SET title = 'Other' WHERE id = 'z'")
            other.execute("INSERT INTO digits (experiment_id, point, row) VALUES ('first', 8, 0)")
        compared = copying.compare(full, there, silent)
        assert {each.name for each in compared if not each.same} == {"project", "results of digits, first"}
        with pytest.raises(DatabaseError, match="project, results of digits, first"):
            copying.raise_if_different(compared)
        again = copying.copy(full, there, silent)
        assert [(each.rows, each.rows_there) for each in again if not each.same] == [(2, 3)]  # the row that was added


def test_what_runs_is_not_copied(full: Database, tmp_path: Path) -> None:
    claimed(full, id="running", agent="b")
    there = connect("sqlite:///there.db", tmp_path)
    with closing(there), pytest.raises(UserError, match=r"Under way(.|\n)*digits(.|\n)*ems stop"):
        copying.copy(full, there, silent)
    assert not (tmp_path / "there.db").exists()


def test_another_labs_database_is_left_alone(full: Database, tmp_path: Path) -> None:
    with closing(connect("sqlite:///there.db", tmp_path)) as there:
        there.create()
        fill_lab(there)
        claimed(there, id="theirs")
        before = everything(there)
        with pytest.raises(UserError, match=r"1 experiments that are not in this one, as theirs"):
            copying.copy(full, there, silent)
        assert everything(there) == before


def test_rows_in_another_order_are_the_same_and_values_are_not() -> None:
    rows = [{"point": 0, "x": 1.5}, {"point": 1, "x": float("nan"), "t": None}]
    assert copying.digested(rows) == copying.digested([{"point": 1}, {"x": 1.5, "point": 0}])
    others = [{"point": 0, "x": 1.5}], [{"point": 0, "x": 1.5}, {"point": 2}], [{"point": 0, "x": 1}, {"point": 1}]
    assert copying.digested(rows) not in [copying.digested(other) for other in others]


def test_the_command_copies_and_says_what_to_do_next(here: Lab) -> None:
    ran(here, batch([0], ints("n", 1)))
    command = ["database", "copy", here.database_url, "sqlite:///other/copy.db"]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    assert "results of pi" in result.output and "sqlite:///other/copy.db, and commit" in result.output
    assert "different" not in result.output
    found = json.loads(CliRunner().invoke(cli.app, [*command, "--json"]).stdout)
    assert {each["name"]: each["rows"] for each in found}["experiment"] == 1
    assert all(each["same"] for each in found)
