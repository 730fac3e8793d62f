"""A lab moves into DynamoDB and BigQuery, and back: whole, interrupted, refused, or to nobody there."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ems.databases import Database, Outcome, State, connect, copying
from ems.lab import Lab
from tests.conftest import ran
from tests.databases.cases import batch, claimed, floats, ints
from tests.databases.postgresql_lab import people
from tests.databases.servers import PostgresqlServer, free_port
from tests.databases.test_copying import everything, full, silent

__all__ = ["full"]
COPY = [sys.executable, "-m", "ems.cli", "database", "copy"]
# Kills itself a moment after the results of so many experiments were begun, each of which is a transaction.
KILLED_COPY = """
import os, signal, sys, threading
from pathlib import Path
from ems.databases import copying
from ems.databases import connect

copying.ROWS_TOGETHER = 1
begun = []
def say(text):
    begun.append(text.startswith("results of "))
    if sum(begun) == int(sys.argv[3]):
        threading.Timer(0.005, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()

copying.copy(connect(sys.argv[1], Path()), connect(sys.argv[2], Path()), say)
"""
MANY = 16
SERVICES = ["dynamodb_url", "bigquery_url"]
# BigQuery's emulator takes half a minute for each.
KILLED = [SERVICES[0], *(pytest.param(url, marks=pytest.mark.drill) for url in SERVICES[1:])]


@pytest.fixture(params=SERVICES)
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def there(url: str, tmp_path: Path) -> Iterator[Database]:
    with closing(connect(url, tmp_path)) as database:
        yield database


def copied(source: str, target: str, expect: int = 0) -> str:
    done = subprocess.run([*COPY, source, target], capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_there_and_back_all_stays_the_same(full: Database, there: Database, tmp_path: Path) -> None:
    for _ in range(2):
        assert all(each.same for each in copying.copy(full, there, silent))
    assert everything(there) == everything(full)
    assert [list(there.origins(id)) for id in ("first", "second")] == [
        list(full.origins(id)) for id in ("first", "second")
    ]
    assert there.experiments() == full.experiments()
    assert list(there.points("second")) == list(full.points("second"))
    with closing(connect("sqlite:///back.db", tmp_path)) as back:
        assert all(each.same for each in copying.copy(there, back, silent))
        assert everything(back) == everything(full)


@pytest.mark.parametrize("url", KILLED, indirect=True)
def test_a_copy_that_is_killed_is_made_whole_by_the_next_one(full: Database, there: Database, here: Lab, url: str):
    ids = [f"one of many {number}" for number in range(MANY)]
    for number, id in enumerate(ids):
        claim = claimed(full, id=id)
        full.store(claim, batch([0, 1], ints("n", number, number)))
        full.release(claim, Outcome(State.SUCCEEDED, 2, 0))
    source = f"sqlite:///{here.root.parent}/full.db"
    before = everything(full)
    killed = subprocess.run([sys.executable, "-c", KILLED_COPY, source, url, str(MANY // 2)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert 0 < sum(rows_of(there, id) > 0 for id in ids) < MANY
    copied(source, url)
    assert everything(there) == everything(full) == before


def rows_of(database: Database, id: str) -> int:
    return sum(map(len, database.results(id)))


def test_nobody_there(here: Lab) -> None:
    ran(here, batch([0], ints("n", 1)))
    absent = f"postgresql://ems@127.0.0.1:{free_port()}/lab"
    assert "does not answer" in copied(here.database_url, absent, expect=4)
    assert "does not answer" in copied(absent, here.database_url, expect=4)


def test_whoever_may_only_read_can_copy_from_it_and_not_into_it(
    here: Lab, postgresql_server: PostgresqlServer, postgresql_url: str
) -> None:
    ran(here, batch([0], floats("x", 1.5)))
    copied(here.database_url, postgresql_url)
    with closing(connect(postgresql_url, here.root)) as owner:
        owner.setup()
        before = everything(owner)
    name = postgresql_url.rpartition("/")[2]
    with people(postgresql_server, postgresql_url, reader="reader", agent="agent"):
        for person in ("reader", "agent"):
            said = copied(here.database_url, postgresql_server.url(name, user=f"{name}_p_{person}"), expect=4)
            assert "refuses what this role may not do" in said and "ems database check" in said
        copied(postgresql_server.url(name, user=f"{name}_p_reader"), "sqlite:///back.db")
    with closing(connect("sqlite:///back.db", here.root)) as back:
        assert everything(back) == before


def test_where_each_call_is_dear_rows_come_in_greater_batches() -> None:
    batches = [batch([n], ints("a", n), floats("x", n / 2)) for n in range(7)]
    gathered = list(copying._larger(batches, 12))
    assert [list(each.points) for each in gathered] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(gathered[1].columns[1].values) == [1.5, 2.0, 2.5]
    assert [list(each.points) for each in copying._larger(batches, 0)] == [[n] for n in range(7)]
