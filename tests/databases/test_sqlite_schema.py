"""How tables that an older EMS made in SQLite become those of this one."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from ems.base.errors import DatabaseError
from ems.databases import State, connect
from ems.databases.migrations import MIGRATIONS
from ems.databases.sqlite.database import SqliteDatabase
from ems.views.status import status_object
from tests.databases.cases import (
    REGISTRATION,
    VERSION,
    batch,
    claimed,
    claimed_twice,
    failed,
    floats,
    now,
    states,
    table,
)
from tests.databases.test_sqlite import URL, file, made

__all__ = ["file", "made"]


def test_an_older_schema_is_named_and_then_brought_up_to_date(made, file):
    def add_note(connection) -> None:
        connection.execute(text("ALTER TABLE experiment ADD COLUMN note TEXT"))

    made.register(REGISTRATION)
    with closing(SqliteDatabase(file, migrations=[*MIGRATIONS, add_note])) as newer:
        with pytest.raises(DatabaseError, match=rf"needs version {VERSION + 1}(.|\n)*ems up lab"):
            newer.experiments()
        newer.create()
        newer.create()
        assert now(newer).registration == REGISTRATION
    with closing(SqliteDatabase(file)) as older, closing(sqlite3.connect(file)) as raw:
        assert raw.execute("SELECT version, note FROM schema_version, experiment").fetchall() == [(VERSION + 1, None)]
        for call in (older.experiments, older.create):
            with pytest.raises(DatabaseError, match=rf"knows versions up to {VERSION}(.|\n)*Upgrade EMS"):
                call()


def test_a_migration_that_fails_changes_nothing(made, file):
    def half(connection) -> None:
        connection.execute(text("ALTER TABLE experiment ADD COLUMN note TEXT"))
        raise OSError(errno.EIO, "half done")

    with (
        closing(SqliteDatabase(file, migrations=[*MIGRATIONS, half])) as newer,
        pytest.raises(OSError, match="half done"),
    ):
        newer.create()
    made.register(REGISTRATION)
    with closing(sqlite3.connect(file)) as raw:
        assert "note" not in [row[1] for row in raw.execute("PRAGMA table_info(experiment)")]


def test_what_runs_took_is_found_from_an_older_schema(made, file):
    claimed_twice(made)
    with closing(sqlite3.connect(file)) as raw:
        ((used_s,),) = raw.execute("SELECT used_s FROM experiment")
        for column in ("used_s", "files_left", "pilot"):
            raw.execute(f"ALTER TABLE experiment DROP COLUMN {column}")
        for name in ("proposed", "output"):
            raw.execute(f"DROP TABLE {name}")
        raw.execute("ALTER TABLE charge DROP COLUMN basis")
        raw.execute("UPDATE schema_version SET version = 4")
        raw.commit()
        made.close()
        with closing(SqliteDatabase(file)) as newer:
            newer.create()
        assert raw.execute("SELECT used_s FROM experiment").fetchone() == (pytest.approx(used_s, abs=1e-3),)


@pytest.fixture
def version_1(file) -> Path:
    """A lab's database that the first version of EMS made."""
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as raw:
        raw.executescript(
            (Path(__file__).parents[1] / "records" / "database_version_1.sql").read_text(encoding="utf-8")
        )
    return file


def test_tables_of_version_1_are_brought_up_to_date(version_1, tmp_path):
    with closing(connect(URL, tmp_path)) as database:
        with pytest.raises(DatabaseError, match=rf"version 1; this EMS needs version {VERSION}(.|\n)*ems up lab"):
            database.experiments()
        database.create()
        assert now(database).registration == replace(REGISTRATION, points_total=4, max_hours=2.0)
        assert (now(database).state, now(database).rows_stored, now(database).cost_usd) == (State.FAILED, 2, 0.0)
        assert (now(database).platform, status_object(now(database))["platform"]) == ("", "not recorded")
        assert table(database) == {
            "point": [0, 1],
            "row": [0, 0],
            "n": [1, 2],
            "loss": [0.25, None],
            "t": ["a", "é"],
            "ok": [True, None],
        }
        assert states(database) == {"stored": [0, 1], "due": [3]}
        assert list(database.failures("5f0c")) == [failed(3, seed=3)]
        database.reopen("5f0c")
        claim = database.claim("5f0c", agent="b", lease_s=60)
        database.describe(claim, "{}")
        assert {run["attempt"]: run["platform"] for run in database.rows("run")} == {1: "", 2: "{}"}
        database.store(claim, batch([3], floats("loss", 1.5), marks=(failed(2, seed=2),), replaces=(2, 3)))
        assert states(database) == {"stored": [0, 1, 3], "failed": [2]}
        assert database.copy_points(claimed(database, id="other"), "5f0c", [(3, 0)]) == 1
        assert [origin.source for origin in database.origins("other")] == ["5f0c"]


def test_results_in_a_table_whose_name_is_needed_are_not_touched(version_1, tmp_path):
    with closing(sqlite3.connect(version_1)) as raw:
        raw.execute("ALTER TABLE digits RENAME TO output")
        raw.execute("UPDATE experiment SET results_table = 'output'")
        raw.commit()
        with closing(connect(URL, tmp_path)) as database:
            told = r"'output' holds results of digits(.|\n)*ALTER TABLE output RENAME TO outputs; UPDATE experiment"
            with pytest.raises(DatabaseError, match=told) as caught:
                database.create()
            raw.executescript(caught.value.hint.partition(": ")[2].partition("; and in")[0])
            database.create()
            assert table(database)["n"] == [1, 2]


def test_a_migrated_database_has_the_tables_of_a_new_one(version_1, tmp_path):
    with closing(connect(URL, tmp_path)) as old, closing(connect("sqlite:///new.db", tmp_path)) as new:
        old.create()
        new.create()
    assert described(version_1, but="digits") == described(tmp_path / "new.db")


def described(file: Path, but: str = "") -> dict[str, tuple]:
    """Columns, in no order, foreign keys and indices of each table."""
    with closing(sqlite3.connect(file)) as raw:
        names = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: tuple(
                sorted(row[1:] for row in raw.execute(f"SELECT * FROM {pragma}(?)", (name,)))
                for pragma in ("pragma_table_info", "pragma_foreign_key_list", "pragma_index_list")
            )
            for name in names
            if name != but
        }


@pytest.mark.parametrize("stacks", [None, ["digits"]])
def test_which_experiments_are_newest_is_read_from_an_index_alone(made, file, stacks):
    asked = made._rows.newest(stacks, ()).compile(dialect=made._backend.dialect, compile_kwargs={"literal_binds": True})
    with closing(sqlite3.connect(file)) as raw:
        plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {asked}")]
    assert [step for step in plan if "COVERING INDEX ix_experiment_newest" in step], plan
    assert not [step for step in plan if step == "SCAN experiment"], plan
