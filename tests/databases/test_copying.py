"""A lab moves between real databases and stays the same."""

from __future__ import annotations

import io
import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ems.base.console import err
from ems.base.errors import DatabaseError, UserError
from ems.cli import app as cli
from ems.databases import Database, Outcome, Output, Project, Round, State, comparing, connect, copying
from ems.databases.comparing import Compared
from ems.lab import Lab
from ems.spool.batch import Column
from ems.views.database import comparison
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
        database.propose(second, Round(2, 8, 1, ({"n": [0.1], "t": ["é\n"]},), "d" * 64))
        database.propose(second, Round(3, 9, 0, (), "e" * 64))
        database.put_outputs(
            second, [Output(0, "é\n/fig.png", "a" * 64, 12, "image/png"), Output(1, "b", "b" * 64, 0, "")]
        )
        database.release(second, Outcome(State.SUCCEEDED, 4, 0))
        database.release(claimed(database, id="third"), Outcome(State.CANCELLED, 0, 0))
        yield database


def everything(database: Database) -> list[object]:
    registry = {name: sorted(map(repr, database.rows(name))) for name in comparing.TABLES}
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
        assert rows["proposed"] == 2 and there.rounds("second") == full.rounds("second")
        assert rows["output"] == 2 and list(there.outputs("second")) == list(full.outputs("second"))
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
        compared = comparing.compare(full, there, silent)
        assert {each.name for each in compared if not each.same} == {"project", "results of digits, first"}
        with pytest.raises(DatabaseError, match="project, results of digits, first"):
            comparing.raise_if_different(compared)
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
    assert comparing.digested(rows) == comparing.digested([{"point": 1}, {"x": 1.5, "point": 0}])
    others = [{"point": 0, "x": 1.5}], [{"point": 0, "x": 1.5}, {"point": 2}], [{"point": 0, "x": 1}, {"point": 1}]
    assert comparing.digested(rows) not in [comparing.digested(other) for other in others]


ROWS = {"x": [0.5, None, math.nan, 2.0], "t": ["None", None, "nan", "é"], "n": [1, 2, 3, None]}


def of_results(cut: int, **changed: list) -> tuple[int, dict[str, str]]:
    """The digests of ROWS in batches of so many rows."""
    of = {"x": "float64", "t": "text", "n": "int64", "f": "float64"}
    values = ROWS | changed
    columns = [
        [Column(name, of[name], found[at : at + cut]) for name, found in values.items()] for at in range(0, 4, cut)
    ]
    return comparing.digested_results(
        batch(list(range(at, min(at + cut, 4))), *part) for at, part in zip(range(0, 4, cut), columns, strict=True)
    )


def test_results_are_compared_by_all_values_however_they_are_cut() -> None:
    assert of_results(4) == of_results(1) == of_results(3)
    assert of_results(4) == of_results(2, x=[0.5, math.nan, None, 2.0], f=[None, math.nan, None, None])
    others = [
        {"x": [0.5, None, None, 2]},
        {"t": ["None", "None", "nan", "é"]},
        {"n": [1, None, 2, 3]},
        {"f": [0.0] * 4},
    ]
    assert of_results(4) not in [of_results(4, **other) for other in others]
    assert of_results(4, x=[0.0] * 4) != of_results(4, x=[0.0, 0.0, -0.0, 0.0])


def test_all_results_that_are_the_same_are_one_line() -> None:
    same = [Compared(f"results of s{n}", 5, 5, True, f"s{n}") for n in range(1_000)]
    found = [Compared("run", 3, 3, True), *same, Compared("results of digits, 5f0c", 2, 3, False, "digits")]
    file = io.StringIO()
    Console(file=file, width=80).print(comparison(found))
    lines = [line.split() for line in file.getvalue().splitlines()[1:]]
    assert lines == [
        ["run", "3", "3", "same"],
        ["results", "of", "1,000", "experiments", "5,000", "5,000", "same"],
        ["results", "of", "digits,", "5f0c", "2", "3", "different"],
    ]
    with pytest.raises(DatabaseError, match=r"s8, results of s9 and 990 more\."):
        comparing.raise_if_different(replace(each, same=False) for each in same)


@pytest.mark.parametrize(
    "same", ["sqlite:///.ems/ems.db", "sqlite:///x/../.ems/ems.db", "sqlite:///{root}/.ems/ems.db"]
)
def test_a_database_is_not_copied_onto_itself(here: Lab, same: str) -> None:
    ran(here, batch([0], floats("x", 1.0)))
    done = CliRunner().invoke(cli.app, ["database", "copy", here.database_url, same.format(root=here.root)])
    assert done.exit_code == 2 and "are the same database" in done.stderr


@pytest.mark.parametrize(
    ("source", "target", "shown"),
    [
        ("sqlite:///no.db", "sqlite:///copy.db", "FROM has no tables yet: {root}/no.db.\nName the one"),
        (None, "sqlite:///typo/copy.db", "TO is in a folder that is not there: {root}/typo.\nmkdir -p {root}/typo"),
        ("sqlite://", "sqlite:///copy.db", "FROM is 'sqlite://': that names no file"),
        (None, "postgres://h/lab", "TO is 'postgres://h/lab': no database of that kind.\nDid you mean postgresql:"),
        (None, "sqlite:///Pulumi.yaml", "is not an SQLite database (file is not a database).\nGive TO another path."),
    ],
)
def test_what_cannot_be_copied_is_told_of_the_argument(
    here: Lab, source: str | None, target: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(err, "width", 10_000)
    ran(here, batch([0], ints("n", 1)))
    files = sorted(here.root.rglob("*"))
    done = CliRunner().invoke(cli.app, ["database", "copy", source or here.database_url, target])
    assert done.exit_code in {2, 4} and shown.format(root=here.root) in done.stderr, done.stderr
    assert sorted(here.root.rglob("*")) == files, "nothing is made"


def test_where_a_run_is_under_way_nothing_is_made(here: Lab) -> None:
    ran(here, batch([0], ints("n", 1)), state=None)
    done = CliRunner().invoke(cli.app, ["database", "copy", here.database_url, "sqlite:///copy.db"])
    assert done.exit_code == 2 and "Under way" in done.stderr
    assert not (here.root / "copy.db").exists()


def test_the_command_copies_and_says_what_to_do_next(here: Lab) -> None:
    ran(here, batch([0], ints("n", 1)))
    command = ["database", "copy", here.database_url, "sqlite:///copy.db"]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    assert "results of 1 experiment " in result.output and "sqlite:///copy.db, and commit" in result.output
    assert "different" not in result.output
    found = json.loads(CliRunner().invoke(cli.app, [*command, "--json"]).stdout)
    assert {each["name"]: each["rows"] for each in found}["experiment"] == 1
    assert all(each["same"] for each in found)
