"""A lab on the PostgreSQL server that all tests share, and people who use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from ems.databases import Database, connect
from ems.databases.postgresql.database import PostgresqlDatabase
from ems.spool.batch import Column
from tests.databases.cases import fill_lab, floats
from tests.databases.servers import PostgresqlServer

HERE = Path()


@pytest.fixture
def made(postgresql_url) -> Iterator[PostgresqlDatabase]:
    with closing(PostgresqlDatabase(postgresql_url)) as database:
        database.create()
        fill_lab(database)
        yield database


@pytest.fixture
def sql(postgresql_url) -> Iterator[Callable[[str], list[tuple]]]:
    """Somebody who works on the same database without EMS."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:

        def execute(statement: str) -> list[tuple]:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

        yield execute


def wide(numbers: range, rows: int, shift: float = 0.0) -> list[Column]:
    return [floats(f"v{number:04}", *[number + shift] * rows) for number in numbers]


# Roles


@contextmanager
def people(server: PostgresqlServer, url: str, **groups: str) -> Iterator[dict[str, Database]]:
    """Clients of new logins, each a member of a role of the lab: people(…, ann="agent")."""
    name = url.rpartition("/")[2]
    for person, group in groups.items():
        login = f"{name}_p_{person}"
        server.execute(f"CREATE ROLE {login} LOGIN IN ROLE {name}_{group}")
        server.execute(f"ALTER ROLE {login} SET role = {name}_{group}")
    clients = {person: connect(server.url(name, user=f"{name}_p_{person}"), HERE) for person in groups}
    yield clients
    for client in clients.values():
        client.close()
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for role in [f"{name}_p_{person}" for person in groups] + [f"{name}_{r}" for r in ("owner", "agent", "reader")]:
        server.execute(f"DROP ROLE {role}")
    server.execute(f"CREATE DATABASE {name}")
