"""A real standby of PostgreSQL: what follows another server, and can be read alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.databases import Claim, Database, Experimenter, Outcome, State, connect
from tests.databases.cases import REGISTRATION, batch, claimed, failed, fill_lab, ints, now, states, table
from tests.databases.servers import PostgresqlServer
from tests.processes import eventually

pytestmark = pytest.mark.xdist_group("postgresql_standby")
HERE = Path()
ACCESS = "host all all 127.0.0.1/32 trust\nlocal all,replication all trust\n"


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer.make(access=ACCESS)
    yield server
    server.end()


@pytest.fixture(scope="module")
def standby(primary) -> Iterator[PostgresqlServer]:
    server = primary.standby()
    yield server
    server.end()


@pytest.fixture
def name(primary, standby) -> Iterator[str]:
    with primary.database() as name:
        yield name


@pytest.fixture
def running(primary, name) -> Iterator[tuple[Database, Claim]]:
    with closing(connect(primary.url(name), HERE)) as database:
        database.create()
        fill_lab(database)
        claim = claimed(database)
        database.store(claim, batch([0, 1], ints("x", 1, 2), marks=(failed(2),)))
        eventually(primary.is_followed)
        yield database, claim


def test_a_standby_is_read_while_the_primary_is_written(primary, standby, name, running):
    database, claim = running
    with closing(connect(standby.url(name), HERE)) as reader:
        reading = reader.results("5f0c", chunk_rows=1)
        first = next(reading)
        database.store(claim, batch([1, 3], ints("x", 9, 3), replaces=(1,)))
        database.release(claim, Outcome(State.FAILED, 3, 1))
        eventually(primary.is_followed)
        assert [list(part.columns[0].values) for part in (first, *reading)] == [[1], [2]]
        assert table(reader)["x"] == [1, 9, 3]
        assert (now(reader), states(reader)) == (now(database), states(database))
        assert list(reader.failures("5f0c")) == [failed(2)]
        assert list(reader.origins("5f0c")) == [] and len(reader.experiments()) == 1
        assert list(reader.rows("funding")) == list(database.rows("funding"))


def test_what_a_standby_refuses_names_the_way_to_the_primary(standby, name, running):
    _, claim = running
    with closing(connect(standby.url(name), HERE)) as reader:
        calls = [
            reader.create,
            reader.setup,
            lambda: reader.upsert(Experimenter("new", "New")),
            lambda: reader.register(REGISTRATION),
            lambda: reader.claim("5f0c", agent="b", lease_s=1),
            lambda: reader.beat(claim, 60),
            lambda: reader.store(claim, batch([3], ints("x", 3))),
            lambda: reader.release(claim, Outcome(State.SUCCEEDED, 3, 0)),
            lambda: reader.request_cancel("5f0c"),
        ]
        for call in calls:
            with pytest.raises(DatabaseError, match=r"read-only(.|\n)*target_session_attrs=read-write") as raised:
                call()
            assert not isinstance(raised.value, DatabaseUnavailable)
        assert reader.check().may == ("read",)
        assert table(reader)["x"] == [1, 2]


def test_libpq_finds_the_primary_among_several_and_waits_for_one(primary, standby, name, running):
    _, claim = running
    both = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
    with closing(connect(f"postgresql://ems@{both}/{name}?target_session_attrs=read-write", HERE)) as database:
        database.store(claim, batch([3], ints("x", 3)))
        assert table(database)["x"] == [1, 2, 3]
    alone = standby.url(name, query="?target_session_attrs=read-write")  # as while the primary's heir is found
    with closing(connect(alone, HERE)) as database, pytest.raises(DatabaseUnavailable, match="session is read-only"):
        database.experiments()
