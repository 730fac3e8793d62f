"""What is special to PostgreSQL, on the server that all tests share; test_postgresql_away.py has one of its own."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from contextlib import closing

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import text

from ems.base.errors import DatabaseError, DatabaseUnavailable, UserError
from ems.databases import Outcome, State, connect
from ems.databases.migrations import MIGRATIONS
from ems.databases.postgresql import backend
from ems.databases.postgresql import layout as postgresql_layout
from ems.databases.postgresql.database import PostgresqlDatabase
from ems.databases.postgresql.errors import explained
from tests.databases.cases import (
    REGISTRATION,
    VERSION,
    Address,
    at_once,
    batch,
    claimed,
    claimed_twice,
    failed,
    floats,
    ints,
    now,
    states,
    table,
    texts,
)
from tests.databases.contract import DatabaseContract
from tests.databases.postgresql_lab import HERE, made, sql, wide
from tests.databases.volume_contract import numbered
from tests.processes import eventually

__all__ = ["made", "sql"]


class TestPostgresql(DatabaseContract):
    takes_nul = False

    @pytest.fixture
    def address(self, postgresql_url, tmp_path) -> Address:
        return postgresql_url, tmp_path


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@host/lab",
        "postgresql://host/lab?password=s3cret",
        "postgresql:///lab?service=x&password=s3cret",
        "postgresql://host/lab?sslkey=a&sslpassword=s3cret",
    ],
)
def test_a_secret_in_the_url_is_refused_and_not_repeated(url):
    with pytest.raises(UserError, match=r"pgpass") as raised:
        connect(url, HERE)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["postgresql://me:s3cret@[::1/lab", "postgresql://me:s3%zzcret@host/lab", "postgresql://host/lab?unknown=1"]
)
def test_what_is_no_url_is_told_without_what_may_be_a_secret(url):
    with pytest.raises(UserError, match=r"no PostgreSQL URL(.|\n)*Allowed: postgresql://") as raised:
        connect(url, HERE)
    assert "s3" not in str(raised.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in ("database", "backend"):
        monkeypatch.delitem(sys.modules, f"ems.databases.postgresql.{name}")
    with pytest.raises(UserError, match=r"psycopg(.|\n)*pip install 'ems-experiments\[postgresql\]'"):
        connect("postgresql:///lab", HERE)


# Errors


@pytest.mark.parametrize(
    "kind",
    [
        errors.AdminShutdown,
        errors.CrashShutdown,
        errors.CannotConnectNow,
        errors.TooManyConnections,
        errors.DiskFull,
        errors.SerializationFailure,
        errors.DeadlockDetected,
        errors.LockNotAvailable,
        errors.QueryCanceled,
        errors.IdleInTransactionSessionTimeout,
        psycopg.OperationalError,
    ],
)
def test_what_may_pass_is_unavailable(kind):
    assert isinstance(explained(kind("…"), "postgresql:///lab"), DatabaseUnavailable)


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (errors.InsufficientPrivilege, "ems database check"),
        (errors.ReadOnlySqlTransaction, "target_session_attrs=read-write"),
        (errors.UndefinedTable, "backup"),
        (errors.UntranslatableCharacter, "UTF8"),
        (errors.SyntaxError, "report"),
    ],
)
def test_what_stays_says_what_to_do(kind, hint):
    found = explained(kind("…"), "postgresql:///lab")
    assert not isinstance(found, DatabaseUnavailable)
    assert hint in found.hint


def test_a_table_of_somebody_else_is_left_alone(made, sql):
    sql("CREATE TABLE digits (a int)")
    with pytest.raises(DatabaseError, match="'digits' of the database was not made by EMS"):
        made.store(claimed(made), batch([0], floats("x", 0.5)))
    assert sql("SELECT count(*) FROM digits") == [(0,)]


def test_a_column_whose_type_was_changed_is_named(made, sql):
    claim = claimed(made)
    made.store(claim, batch([0], floats("x", 1.0)))
    sql("ALTER TABLE digits ALTER COLUMN x TYPE numeric(5, 2)")
    with pytest.raises(DatabaseError, match=r"'digits': column 'x' has the type numeric, which.*it was changed"):
        made.store(claim, batch([1], floats("x", 2.0)))


# Schema


def test_an_older_schema_is_named_and_then_brought_up_to_date(made, postgresql_url, sql):
    def add_note(connection) -> None:
        connection.execute(text("ALTER TABLE experiment ADD COLUMN note TEXT"))

    made.register(REGISTRATION)
    with closing(PostgresqlDatabase(postgresql_url, migrations=[*MIGRATIONS, add_note])) as newer:
        with pytest.raises(DatabaseError, match=rf"needs version {VERSION + 1}(.|\n)*ems up lab"):
            newer.experiments()
        at_once([newer.create, newer.create])
        assert now(newer).registration == REGISTRATION
    with closing(PostgresqlDatabase(postgresql_url)) as older:
        for call in (older.experiments, older.create):
            with pytest.raises(DatabaseError, match=rf"knows versions up to {VERSION}(.|\n)*Upgrade EMS"):
                call()
    assert sql("SELECT version, note FROM schema_version, experiment") == [(VERSION + 1, None)]


def test_runs_of_an_older_schema_have_no_platform(made, sql, tmp_path, postgresql_url):
    claim = claimed_twice(made)
    used = sql("SELECT used_s FROM experiment")
    for statement in (
        "ALTER TABLE run DROP COLUMN platform",
        "ALTER TABLE experiment DROP COLUMN used_s",
        "DROP TABLE proposed",
        "DROP TABLE output",
        "ALTER TABLE charge DROP COLUMN basis",
        "ALTER TABLE experiment DROP COLUMN files_left",
        "ALTER TABLE experiment DROP COLUMN pilot",
        "DROP INDEX ix_experiment_newest",
        "CREATE INDEX ix_experiment_stack ON experiment (stack)",
        "UPDATE schema_version SET version = 2",
    ):
        sql(statement)
    with closing(connect(postgresql_url, tmp_path)) as newer:
        newer.create()
        assert now(newer).platform == ""
        newer.describe(claim, "{}")
        assert now(newer).platform == "{}"
    assert sql("SELECT used_s FROM experiment") == [pytest.approx(used[0])]
    indexes = {name for (name,) in sql("SELECT indexname FROM pg_indexes WHERE tablename = 'experiment'")}
    assert indexes == {"experiment_pkey", "ix_experiment_newest"}


# Writers


def test_two_that_register_the_same_experiment_both_succeed(made, postgresql_url):
    clients = [PostgresqlDatabase(postgresql_url) for _ in range(16)]
    at_once([lambda client=client: client.register(REGISTRATION) for client in clients])
    assert [found.id for found in made.experiments()] == ["5f0c"]
    for client in clients:
        client.close()


def test_what_others_hold_is_waited_for(made, postgresql_url):
    claim = claimed(made)
    made.store(claim, batch([0], ints("x", 1)))
    with psycopg.connect(postgresql_url) as other:
        other.execute("LOCK TABLE digits IN ACCESS EXCLUSIVE MODE")
        threading.Timer(0.5, other.commit).start()
        made.store(claim, batch([1], ints("x", 2)))
    assert table(made)["x"] == [1, 2]


def test_a_client_that_stops_in_a_transaction_keeps_nobody_out_for_ever(made, postgresql_url, monkeypatch):
    """As a laptop that sleeps while its agent writes: the server ends the transaction; the run can be taken over."""
    monkeypatch.setattr(backend, "IDLE", "500ms")
    made.register(REGISTRATION)
    with (
        closing(connect(postgresql_url, HERE)) as stopped,
        pytest.raises(DatabaseUnavailable, match="waited too long"),
        stopped._backend.writing() as connection,
    ):
        stopped._rows.row(connection, REGISTRATION.id)
        assert made.claim(REGISTRATION.id, agent="other", lease_s=60)
        stopped._rows.row(connection, REGISTRATION.id)
    assert made.experiment(REGISTRATION.id).state is State.RUNNING


def test_text_of_a_job_with_nul_does_not_keep_a_run_from_ending(made):
    claim = claimed(made)
    made.store(claim, batch([], marks=(failed(1, "a\0b \ud800", p="a\0b"),)))
    made.release(claim, Outcome(State.FAILED, 0, 1, error="a\0b", log_tail="c\0"))
    (mark,) = made.failures("5f0c")
    assert (mark.error, mark.parameters) == ("a␀b ?", {"p": "a\0b"})
    assert (now(made).error, now(made).log_tail) == ("a␀b", "c␀")


# Readers


def test_a_reader_that_dawdles_keeps_nobody_from_adding_columns(made):
    claim = claimed(made)
    made.store(claim, batch(list(range(25)), ints("x", *range(25))))
    reading, points = made.results("5f0c", chunk_rows=10), made.points("5f0c")
    next(reading), next(points)
    made.store(claim, batch([30], ints("new", 1), floats("more", 1.0)))
    assert [part.columns[0].name for part in reading] == ["x", "x"]
    assert len(table(made)) == 2 + 3


def test_a_table_that_was_made_anew_is_not_read_as_empty(made):
    claim = claimed(made)
    made.store(claim, batch(list(range(25)), ints("x", *range(25))))
    reading = made.results("5f0c", chunk_rows=10)
    next(reading)
    made.store(claim, batch([30], floats("x", 0.5)))
    with pytest.raises(DatabaseUnavailable, match=r"made anew while it was read(.|\n)*again"):
        next(reading)
    assert len(table(made)["x"]) == 26


def test_each_row_is_read_once_before_the_server_knows_how_many_there_are(made, sql):
    claim = claimed(made)
    for start in range(0, 100_000, 20_000):
        made.store(claim, numbered(range(start, start + 20_000)))

    def fetched() -> int:
        """Rows that were looked at; servers' processes count when they end."""
        made.close()
        eventually(lambda: sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == [(1,)])
        ((rows,),) = sql("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'digits'")
        return rows

    before = fetched()
    assert sum(len(part) for part in made.results("5f0c", chunk_rows=5_000)) == 100_000
    assert fetched() - before <= 101_000
    assert list(made.points("5f0c")) == [("stored", range(100_000))]
    assert fetched() - before <= 202_000


def test_memory_is_flat_when_reading(made):
    claim = claimed(made)
    for start in range(0, 100_000, 20_000):
        made.store(claim, numbered(range(start, start + 20_000)))
    tracemalloc.start()
    assert sum(len(part) for part in made.results("5f0c", chunk_rows=1000)) == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # all rows would take 10 MB at least


# Columns


def test_names_that_postgresql_does_not_take(made):
    claim = claimed(made)
    made.store(claim, batch([0], ints("é" * 31 + "x", 1)))
    with pytest.raises(DatabaseError, match=r"more than 63 bytes(.|\n)*rename"):
        made.store(claim, batch([0], ints("é" * 32, 1)))
    for name in sorted(postgresql_layout.SYSTEM):
        with pytest.raises(DatabaseError, match=rf"'{name}' is a name that PostgreSQL keeps(.|\n)*rename"):
            made.store(claim, batch([0], ints(name, 1)))
    assert table(made) == {"point": [0], "row": [0], "é" * 31 + "x": [1]}


def test_as_many_columns_as_postgresql_allows_and_no_more(made, sql):
    claim = claimed(made)
    with pytest.raises(DatabaseError, match=r"would have 1598 columns; PostgreSQL allows 1597"):
        made.store(claim, batch([0], *wide(range(1598), 1)))
    made.store(claim, batch([0], *wide(range(900), 1), *[texts(f"t{n}", "é" * 3000) for n in range(90)]))
    made.store(claim, batch([1], *wide(range(1507), 1)))
    with pytest.raises(DatabaseError, match=r"would have 1598 columns; PostgreSQL allows 1597"):
        made.store(claim, batch([2], ints("one more", 1)))
    found = table(made)
    assert len(found) == 2 + 1597
    assert (found["v0899"], found["v1506"], found["t89"]) == ([899.0, 899.0], [None, 1506.0], ["é" * 3000, None])
    (rows,) = sql("SELECT json_agg(row_to_json(d)) FROM (SELECT v0000, v1506, t0 IS NULL AS t FROM digits) d")[0]
    assert rows == [{"v0000": 0, "v1506": None, "t": False}, {"v0000": 0, "v1506": 1506, "t": True}]


def test_rows_that_go_on_in_another_table_are_replaced_widened_and_removed_as_one(made, sql):
    claim = claimed(made)
    made.store(claim, batch([0, 1], ints("n", 5, 6), *wide(range(970), 2)))
    before = sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'digits part _'")
    made.store(claim, batch([1, 2, 2], *wide(range(980), 3, 0.5), ints("last", 1, 2, 3), rows=[0, 0, 0]))
    assert (before, sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'digits part _'")) == ([(0,)], [(2,)])
    made.store(claim, batch([3], floats("last", 0.5), floats("n", 1.5)))
    found = table(made, columns=["n", "v0000", "v0979", "last"])
    assert found == {
        "point": [0, 1, 2, 3],
        "row": [0, 0, 0, 0],
        "n": [5.0, None, None, 1.5],
        "v0000": [0.0, 0.5, 0.5, None],
        "v0979": [None, 979.5, 979.5, None],
        "last": [None, 1.0, 3.0, 0.5],
    }
    made.store(claim, batch([], replaces=(1, 2)))
    assert states(made) == {"stored": [0, 3]}
    assert now(made).rows_stored == 2
    assert sql('SELECT count(*) FROM "digits part 2"') == [(1,)]
    assert made.copy_points(claimed(made, id="other"), "5f0c", [(0, 7), (3, 8)]) == 2
    assert table(made, "other", columns=["n"])["n"] == [5.0, 1.5]
