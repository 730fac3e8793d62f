"""What the tests of databases share: a small lab, short ways to write batches, and other processes' part."""

from __future__ import annotations

import itertools
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import HealthCheck

from ems.base.errors import FencedOut
from ems.databases import (
    Claim,
    Database,
    Experiment,
    Experimenter,
    Funding,
    Outcome,
    Project,
    Registration,
    State,
    connect,
)
from ems.databases.migrations import MIGRATIONS
from ems.spool.batch import Batch, Column, Mark

Address = tuple[str, Path]

REGISTRATION = Registration(
    id="5f0c",
    stack="digits",
    digest="d1",
    experimenter="researcher",
    project="study",
    funding="grant",
    spec='{"a": 1}',
    repository="https://example.org/lab.git",
    commit="c" * 40,
    tree="t" * 40,
    stack_file_commit="s" * 40,
    environment="base",
    environment_digest="e1",
    python="3.11",
    cluster="laptop",
    results_table="digits",
    points_total=8,
)
LONG_S = 3600.0
VERSION = len(MIGRATIONS) + 1  # of the tables of SQL databases
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]  # one contract, many databases
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["tests.databases.cases", "ems.databases.dynamodb.database"]
)  # eight imports would take seconds
WORKERS = 8


def fill_lab(database: Database) -> None:
    database.upsert(Experimenter("researcher", "A Researcher", email="researcher@example.org"))
    database.upsert(Project("study", "A study"))
    database.upsert(Funding("grant", "An agency"))


def claimed(database: Database, id: str = "5f0c", agent: str = "a", lease_s: float = LONG_S, **changes) -> Claim:
    """A running experiment, registered anew if need be."""
    database.register(replace(REGISTRATION, id=id, **changes))
    claim = database.claim(id, agent=agent, lease_s=lease_s)
    assert claim is not None
    return claim


def claimed_twice(database: Database) -> Claim:
    """A running experiment whose first run took a while."""
    first = claimed(database)
    time.sleep(0.1)
    database.release(first, Outcome(State.LOST, 0, 0))
    return claimed(database)


def batch(
    points: list[int],
    *columns: Column,
    replaces: tuple[int, ...] = (),
    rows: list[int] | None = None,
    marks: tuple[Mark, ...] = (),
) -> Batch:
    return Batch(array("q", points), array("q", rows or [0] * len(points)), columns, replaces, marks)


def empty(point: int, **parameters) -> Mark:
    return Mark(point, "empty", parameters)


def failed(point: int, error: str = "ValueError: no", **parameters) -> Mark:
    return Mark(point, "failed", parameters, error)


def states(database: Database, id: str = "5f0c") -> dict[str, list[int]]:
    """Which points are stored, empty or failed."""
    found: dict[str, list[int]] = {}
    for state, points in database.points(id):
        found.setdefault(state, []).extend(points)
    return found


def ints(name: str, *values) -> Column:
    return Column(name, "int64", list(values))


def floats(name: str, *values) -> Column:
    return Column(name, "float64", list(values))


def texts(name: str, *values) -> Column:
    return Column(name, "text", list(values))


def table(database: Database, id: str = "5f0c", **options) -> dict[str, list]:
    """All results by column, `point` and `row` first."""
    merged: dict[str, list] = {}
    for part in database.results(id, **options):
        merged.setdefault("point", []).extend(part.points)
        merged.setdefault("row", []).extend(part.rows)
        for column in part.columns:
            merged.setdefault(column.name, []).extend(column.values)
    return merged


def now(database: Database, id: str = "5f0c") -> Experiment:
    found = database.experiment(id)
    assert found is not None
    return found


def at_once(calls: list[Callable[[], object]]) -> None:
    """Each call in a thread of its own; raises what one of them raised."""
    barrier, raised = threading.Barrier(len(calls)), []

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in raised:
        raise error


def claim_elsewhere(address: Address, agent: str) -> int | None:
    """In another process: the number of the run that `agent` got."""
    with closing(connect(*address)) as database:
        claim = database.claim("5f0c", agent=agent, lease_s=LONG_S)
        return claim.attempt if claim else None


def create_elsewhere(address: Address, agent: str) -> None:
    with closing(connect(*address)) as database:
        database.create()
        database.upsert(Experimenter(agent, agent))


def write_elsewhere(address: Address, number: int, batches: int) -> None:
    with closing(connect(*address)) as database:
        claim = claimed(database, f"writer-{number}")
        for index in range(batches):
            points = list(range(index * 50, index * 50 + 50))
            database.store(claim, batch(points, ints("writer", *[number] * 50), replaces=tuple(points)))
            database.beat(claim, LONG_S, points_done=index + 1)
        database.release(claim, Outcome(State.SUCCEEDED, batches, 0))


def store_without_end(address: Address, told: Connection) -> None:
    with closing(connect(*address)) as database:
        claim = claimed(database)
        for index in itertools.count():
            points = range(index * 20, index * 20 + 20)
            database.store(claim, batch(list(points), ints("x", *points), replaces=tuple(points)))
            told.send(points.stop)


def assert_fenced(database: Database, claim: Claim) -> None:
    before = now(database), states(database)
    calls = [
        lambda: database.beat(claim, LONG_S, points_done=5),
        lambda: database.describe(claim, '{"zombie": 1}'),
        lambda: database.store(claim, batch([0], ints("zombie", 1), marks=(failed(1),))),
        lambda: database.release(claim, Outcome(State.FAILED, 5, 0, error="zombie")),
    ]
    for call in calls:
        with pytest.raises(FencedOut):
            call()
    assert (now(database), states(database)) == before


class DatabaseCase:
    """A backend's tests give `address`: the URL and root of a database that does not exist yet."""

    exact_nan = True
    """False where the service stores NaN as NULL."""
    takes_nul = True
    """False where text with NUL is refused."""

    @pytest.fixture
    def address(self) -> Address:
        raise NotImplementedError

    @pytest.fixture
    def connect_again(self, address: Address) -> Iterator[Callable[[], Database]]:
        """Another client of the same database."""
        opened: list[Database] = []

        def again() -> Database:
            opened.append(connect(*address))
            return opened[-1]

        yield again
        for client in opened:
            client.close()

    @pytest.fixture
    def database(self, address: Address) -> Iterator[Database]:
        with closing(connect(*address)) as database:
            database.create()
            fill_lab(database)
            yield database

    @pytest.fixture(scope="class")
    @classmethod
    def processes(cls) -> Iterator[ProcessPoolExecutor]:
        with ProcessPoolExecutor(WORKERS, PROCESSES) as pool:
            yield pool
