"""How tables that an older EMS made become those of `tables`. A migration never changes once it was released."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, text

Migration = Callable[[Connection], None]


def _points(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE experiment ADD COLUMN job_digest TEXT DEFAULT '' NOT NULL",
        "ALTER TABLE point ADD COLUMN attempt BIGINT DEFAULT '0' NOT NULL",
        """CREATE TABLE copied (
            experiment_id TEXT NOT NULL REFERENCES experiment (id),
            first_point BIGINT NOT NULL,
            last_point BIGINT NOT NULL,
            source TEXT NOT NULL REFERENCES experiment (id),
            source_point BIGINT NOT NULL,
            attempt BIGINT NOT NULL,
            PRIMARY KEY (experiment_id, first_point)
        )""",
    ):
        connection.execute(text(statement))


def _platform(connection: Connection) -> None:
    if connection.dialect.name != "bigquery":
        connection.execute(text("ALTER TABLE run ADD COLUMN platform TEXT DEFAULT '' NOT NULL"))
        return
    # A column that is added there must be nullable; the second statement may find the first one done
    for statement in (
        "ALTER TABLE run ADD COLUMN IF NOT EXISTS platform STRING",
        "UPDATE run SET platform = '' WHERE platform IS NULL",
    ):
        connection.execute(text(statement))


def _newest(connection: Connection) -> None:
    if connection.dialect.name == "bigquery":  # has no indexes
        return
    for statement in (
        "CREATE INDEX ix_experiment_newest ON experiment (stack, destroyed_at, registered_at, id)",
        "DROP INDEX ix_experiment_stack",
    ):
        connection.execute(text(statement))


MIGRATIONS: tuple[Migration, ...] = (_points, _platform, _newest)  # the n-th brings version n to n + 1
