"""PostgreSQL as the database uses it: its connections, locks and snapshots.

Readers take REPEATABLE READ, writers READ COMMITTED with the experiment's row locked first, so that nobody waits in a
circle. No statement is prepared: a plan made while a table was small would be kept when it is large.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, Table, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.pool import QueuePool

from ems.base.errors import UserError
from ems.databases import Claim, Condition
from ems.databases.migrations import Migration
from ems.databases.postgresql import reading as postgresql_reading
from ems.databases.postgresql import results as postgresql_results
from ems.databases.postgresql import roles, secret_versions
from ems.databases.postgresql.errors import explained
from ems.databases.sql_backend import SqlBackend, mapped
from ems.databases.states import Row
from ems.databases.tables import UtcTime, experiment
from ems.spool.batch import Batch

WRITING = {"isolation_level": "READ COMMITTED", "postgresql_readonly": False}
READING = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
CHANGING_S = 5.0  # while a password changes, server and secret store disagree for a moment
SECRETS = ("password", "sslpassword")
DEFAULTS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "tcp_user_timeout": 30_000,
    "fallback_application_name": "ems",
    "client_encoding": "UTF8",
}
IDLE = "30s"  # of a client that stopped in a transaction: then the server ends it, and its locks with it
SESSION = """SELECT set_config('lock_timeout', '10s', false), set_config('tcp_keepalives_idle', '30', false),
    set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false),
    set_config('synchronous_commit',
    CASE setting WHEN 'off' THEN 'on' ELSE setting END, false)
    FROM current_setting('synchronous_commit') AS setting"""
ALLOWED = "Allowed: postgresql://[USER@]HOST[:PORT]/DATABASE[?sslmode=verify-full], or postgresql:///?service=NAME."


def settings_of(url: str) -> dict[str, Any]:
    """What the URL says; UserError if it is none, or holds a secret."""
    try:
        settings = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        problem = str(error).partition('"')[0].rstrip(" :")  # what is quoted may be a part of a password
        raise UserError(f"ems:database is no PostgreSQL URL: {problem}.", ALLOWED) from error
    if secrets := [name for name in SECRETS if settings.get(name)]:
        raise UserError(
            f"ems:database has a {secrets[0]} in it, and that file, Pulumi's state and logs are read by many.",
            "Leave it out of the URL, and write it into ~/.pgpass (chmod 600): HOST:PORT:DATABASE:USER:PASSWORD; or "
            "name the version of a secret that has it: password_from=projects/…, or =arn:aws:secretsmanager:…",
        )
    return settings


class PostgresqlBackend(SqlBackend):
    """What PostgreSQL brings to the SQL database. UserError if `url` is not a PostgreSQL URL, or holds a secret."""

    clock = func.clock_timestamp(type_=UtcTime())
    dialect = dialect()  # type: ignore[no-untyped-call]

    def __init__(self, url: str, migrations: Sequence[Migration]) -> None:
        self.plain_url, self._password_from = secret_versions.taken_out(url)
        self.settings = settings_of(self.plain_url)
        super().__init__(url, migrations)
        self._engine = self._make_engine()
        self._writers = self._engine.execution_options(**WRITING)
        self._readers = self._engine.execution_options(**READING)

    def _make_engine(self) -> Engine:
        return create_engine(
            "postgresql+psycopg://",
            creator=self._open,
            poolclass=QueuePool,
            pool_size=2,
            max_overflow=-1,  # each unfinished reading holds a connection
            pool_pre_ping=True,  # so that a restart of the server passes unnoticed between two calls
        )

    def _open(self) -> psycopg.Connection[Any]:
        try:
            return self._opened()
        except psycopg.OperationalError as error:
            if not self._password_from or "password authentication failed" not in str(error):
                raise
        time.sleep(CHANGING_S)
        return self._opened()

    def _opened(self) -> psycopg.Connection[Any]:
        settings = {**DEFAULTS, **self.settings, "autocommit": True, "prepare_threshold": None}
        if self._password_from:
            settings["password"] = secret_versions.password(self._password_from)
        connection: psycopg.Connection[Any] = psycopg.connect(**settings)
        connection.execute(SESSION)
        connection.autocommit = False
        return connection

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        engine = self._writers if write else self._readers
        with self._mapped(), engine.begin() as connection:
            yield connection

    def _mapped(self) -> AbstractContextManager[None]:
        return mapped(psycopg.Error, lambda error: explained(error, self.name))

    def lock(self, connection: Connection, experiment_id: str) -> None:
        """A statement of its own: one that waits for the lock would see the experiment anew, but not its run."""
        if not connection.get_execution_options()["postgresql_readonly"]:
            idle = func.set_config("idle_in_transaction_session_timeout", IDLE, True)
            statement = select(experiment.c.id, idle).where(experiment.c.id == experiment_id)
            connection.execute(statement.with_for_update(key_share=True))  # copies only refer to it

    def lock_schema(self, connection: Connection) -> None:
        postgresql_results.lock(raw(connection), "schema_version", shared=False)

    def put(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        statement = insert(table)
        given = {name: statement.excluded[name] for name in rows[0]}
        keys = list(table.primary_key.columns)
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=given), list(rows))

    def put_new(self, connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
        statement = insert(table).values(**values).on_conflict_do_nothing()
        return connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount == 1

    def has_table(self, connection: Connection, name: str) -> bool:
        found = select(func.count()).select_from(text("pg_class"))
        mine = found.where(text("relname = :name AND relkind IN ('r', 'v') AND pg_table_is_visible(oid)"))
        return bool(connection.execute(mine, {"name": name}).scalar_one())

    def put_results(self, connection: Connection, row: Row, claim: Claim, batch: Batch) -> int:  # noqa: ARG002
        return postgresql_results.store(raw(connection), claim.results_table, claim.experiment_id, batch)

    def check_columns(self, connection: Connection, table: str, batch: Batch) -> None:
        postgresql_results.check_columns(raw(connection), table, batch)

    def stored_points(self, connection: Connection, row: Row) -> Iterator[int]:
        with self._snapshot(connection) as snapshot:
            yield from postgresql_reading.stored_points(snapshot, row["results_table"], row["id"])

    def rows_of(self, connection: Connection, row: Row, points: Sequence[int]) -> Iterator[Batch]:
        with self._snapshot(connection) as snapshot:
            yield from postgresql_reading.rows_of(snapshot, row["results_table"], row["id"], points)

    def read(
        self,
        connection: Connection,
        row: Row,
        columns: Sequence[str] | None,
        where: Sequence[Condition],
        chunk_rows: int,
    ) -> Iterator[Batch]:
        with self._snapshot(connection) as snapshot:
            yield from postgresql_reading.read(snapshot, row["results_table"], row["id"], columns, where, chunk_rows)

    @contextmanager
    def _snapshot(self, connection: Connection) -> Iterator[postgresql_reading.Snapshot]:
        """What `connection` sees, for short transactions of a second connection."""
        name = connection.execute(select(func.pg_export_snapshot())).scalar_one()
        with self._readers.connect() as second:
            yield postgresql_reading.Snapshot(second, name)

    # What `check` and `setup` ask

    def product(self, connection: Connection) -> str:
        version: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
        return f"PostgreSQL {version.partition(' ')[0]}"

    def role(self, connection: Connection) -> str:
        return str(connection.exec_driver_sql("SELECT current_user").scalar_one())

    def may(self, connection: Connection) -> tuple[str, ...]:
        return roles.may(connection)

    def counts_rows(self, connection: Connection, table: str) -> bool:
        return roles.may_read(connection, table)

    def faults(self, connection: Connection) -> list[str]:
        foreign = roles.foreign_tables(connection) if self.found_version(connection) else []
        return [*roles.faults(connection), *foreign]

    def role_statements(self) -> Sequence[str]:
        return [roles.statement()]


def raw(connection: Connection) -> psycopg.Connection[Any]:
    """psycopg's own connection, in the same transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver
