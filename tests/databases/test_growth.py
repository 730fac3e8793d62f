"""Each database in a lab that has grown old."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from ems.databases import Database, connect
from ems.databases.sqlite.database import SqliteDatabase
from tests.databases.bigquery_server import BigqueryServer
from tests.databases.dynamodb_server import ENDPOINT, DynamodbServer
from tests.databases.growth_contract import MANY, GrowthContract
from tests.databases.servers import PostgresqlServer
from tests.databases.traffic import Traffic, metered

Made = Iterator[tuple[Database, Traffic]]


class TestSqlite(GrowthContract):
    """Without a server: statements, and the values of the rows that the driver hands over."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.files = (tmp_path / f"{number}.db" for number in range(100))

    @contextmanager
    def new(self) -> Made:
        traffic = Traffic()
        with closing(SqliteDatabase(next(self.files))) as database:
            _count(database._backend._engine, traffic)
            yield database, traffic


def _count(engine: Any, traffic: Traffic) -> None:
    def asked(*_: Any) -> None:
        traffic.exchanges += 1

    def received(_: Any, row: tuple[Any, ...]) -> tuple[Any, ...]:
        traffic.received += sum(len(str(value)) for value in row)
        return row

    event.listen(engine, "before_cursor_execute", asked)
    event.listen(engine, "connect", lambda raw, _: setattr(raw, "row_factory", received))


class TestPostgresql(GrowthContract):
    exchanges_of_puts = 10  # the pieces of a pipeline
    slack = 2  # as the server answers those one by one or together

    @pytest.fixture(autouse=True)
    def server(self, postgresql_server: PostgresqlServer) -> None:
        self.own = postgresql_server

    @contextmanager
    def new(self) -> Made:
        traffic = Traffic()
        with self.own.database() as name, metered(self.own.port, traffic) as port:
            url = self.own.url(name).replace(f":{self.own.port}/", f":{port}/")
            with closing(connect(url, Path())) as database:
                yield database, traffic


class TestDynamodb(GrowthContract):
    exchanges_of_puts = MANY // 25 + 1

    @pytest.fixture(autouse=True)
    def server(self, dynamodb_server: DynamodbServer) -> None:
        self.port = dynamodb_server.port

    @contextmanager
    def new(self) -> Made:
        traffic = Traffic()
        with metered(self.port, traffic) as port, pytest.MonkeyPatch.context() as patched:
            patched.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
            with closing(connect(f"dynamodb://eu-central-1/lab-{uuid.uuid4().hex[:12]}", Path())) as database:
                yield database, traffic


class TestBigqueryGrowth(GrowthContract):
    row_bytes = 8_000  # with each answer comes a description of its columns
    slack = 2

    @pytest.fixture(autouse=True)
    def server(self, bigquery_server: BigqueryServer) -> None:
        self.own = bigquery_server

    @contextmanager
    def new(self) -> Made:
        traffic = Traffic()
        with ExitStack() as stack:
            port = stack.enter_context(metered(int(self.own.host.rpartition(":")[2]), traffic))
            patched = stack.enter_context(pytest.MonkeyPatch.context())
            patched.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{port}")
            yield stack.enter_context(closing(connect(self.own.url(), Path()))), traffic
