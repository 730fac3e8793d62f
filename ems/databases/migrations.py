"""How tables that an older EMS made become those of `tables`. A migration never changes once it was released."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, text

from ems.base.errors import DatabaseError

Migration = Callable[[Connection], None]


def _add_text(connection: Connection, table: str, column: str) -> None:
    """A column of text, empty in the rows that are there."""
    if connection.dialect.name != "bigquery":
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {column} TEXT DEFAULT '' NOT NULL"))
        return
    # A column that is added there must be nullable; the second statement may find the first one done
    for statement in (
        f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} STRING",
        f"UPDATE {table} SET {column} = '' WHERE {column} IS NULL",
    ):
        connection.execute(text(statement))


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
    _add_text(connection, "run", "platform")


def _newest(connection: Connection) -> None:
    if connection.dialect.name == "bigquery":  # has no indexes
        return
    for statement in (
        "CREATE INDEX ix_experiment_newest ON experiment (stack, destroyed_at, registered_at, id)",
        "DROP INDEX ix_experiment_stack",
    ):
        connection.execute(text(statement))


SECONDS = {  # from a run's claim to its last heartbeat
    "sqlite": "(julianday(heartbeat_at) - julianday(claimed_at)) * 86400",
    "postgresql": "EXTRACT(EPOCH FROM heartbeat_at - claimed_at)",
    "bigquery": "TIMESTAMP_DIFF(heartbeat_at, claimed_at, MICROSECOND) / 1000000",
}
ADD_USED = {
    "sqlite": ["ALTER TABLE experiment ADD COLUMN used_s DOUBLE DEFAULT '0' NOT NULL"],
    "postgresql": ["ALTER TABLE experiment ADD COLUMN used_s DOUBLE PRECISION DEFAULT '0' NOT NULL"],
    "bigquery": [
        "ALTER TABLE experiment ADD COLUMN IF NOT EXISTS used_s FLOAT64",
        "UPDATE experiment SET used_s = 0 WHERE TRUE",
    ],
}


def _used(connection: Connection) -> None:
    dialect = connection.dialect.name
    for statement in (
        *ADD_USED[dialect],
        f"""UPDATE experiment SET used_s = earlier.took FROM (
            SELECT run.experiment_id AS id, SUM(CASE WHEN heartbeat_at > claimed_at THEN {SECONDS[dialect]} ELSE 0 END)
            AS took FROM run JOIN experiment AS newest ON newest.id = run.experiment_id
            WHERE run.attempt < newest.attempt GROUP BY run.experiment_id
        ) AS earlier WHERE experiment.id = earlier.id""",
    ):
        connection.execute(text(statement))


PROPOSED = {
    "sqlite": """CREATE TABLE proposed (
        experiment_id TEXT NOT NULL REFERENCES experiment (id),
        round BIGINT NOT NULL,
        part BIGINT NOT NULL,
        first_point BIGINT NOT NULL,
        points BIGINT NOT NULL,
        grids TEXT NOT NULL,
        digest TEXT NOT NULL,
        attempt BIGINT NOT NULL,
        at DATETIME NOT NULL,
        PRIMARY KEY (experiment_id, round, part)
    )""",
    "bigquery": """CREATE TABLE IF NOT EXISTS proposed (
        experiment_id STRING NOT NULL,
        round INT64 NOT NULL,
        part INT64 NOT NULL,
        first_point INT64 NOT NULL,
        points INT64 NOT NULL,
        grids STRING NOT NULL,
        digest STRING NOT NULL,
        attempt INT64 NOT NULL,
        at TIMESTAMP NOT NULL
    ) CLUSTER BY experiment_id""",
}
PROPOSED["postgresql"] = PROPOSED["sqlite"].replace("DATETIME", "TIMESTAMP WITH TIME ZONE")
SHARE = """DO $$
DECLARE
    agent name := current_database() || '_agent';
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = agent) THEN
        EXECUTE format('GRANT {rights} ON {table} TO %I', agent);
        EXECUTE format('GRANT SELECT ON {table} TO %I', current_database() || '_reader');
    END IF;
END $$"""


def _proposed(connection: Connection) -> None:
    connection.execute(text(PROPOSED[connection.dialect.name]))
    _share(connection, "proposed", "SELECT, INSERT, UPDATE")


def _share(connection: Connection, table: str, rights: str) -> None:
    """Give the agents' and readers' roles of PostgreSQL, where a lab has them, their rights to a new table."""
    if connection.dialect.name == "postgresql":
        statement = SHARE.format(table=table, rights=rights)
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _files_left(connection: Connection) -> None:
    _add_text(connection, "experiment", "files_left")


def _pilot(connection: Connection) -> None:
    unless_there = "IF NOT EXISTS " if connection.dialect.name == "bigquery" else ""
    connection.execute(text(f"ALTER TABLE experiment ADD COLUMN {unless_there}pilot BIGINT"))


OUTPUT = {
    "sqlite": """CREATE TABLE output (
        experiment_id TEXT NOT NULL REFERENCES experiment (id),
        point BIGINT NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        size BIGINT NOT NULL,
        media_type TEXT NOT NULL,
        attempt BIGINT NOT NULL,
        PRIMARY KEY (experiment_id, point, name)
    )""",
    "bigquery": """CREATE TABLE IF NOT EXISTS output (
        experiment_id STRING NOT NULL,
        point INT64 NOT NULL,
        name STRING NOT NULL,
        digest STRING NOT NULL,
        size INT64 NOT NULL,
        media_type STRING NOT NULL,
        attempt INT64 NOT NULL
    ) CLUSTER BY experiment_id, point""",
}
OUTPUT["postgresql"] = OUTPUT["sqlite"]


def _output(connection: Connection) -> None:
    _refuse_results_table(connection, "output")
    connection.execute(text(OUTPUT[connection.dialect.name]))
    _share(connection, "output", "SELECT, INSERT, UPDATE, DELETE")


def _basis(connection: Connection) -> None:
    _add_text(connection, "charge", "basis")


def _refuse_results_table(connection: Connection, name: str) -> None:
    """DatabaseError if results are in a table whose name EMS needs now."""
    used = text(f"SELECT stack FROM experiment WHERE results_table = '{name}' AND rows_stored > 0")
    stacks = sorted(set(connection.execute(used).scalars()))
    if stacks:
        raise DatabaseError(
            f"Table {name!r} holds results of {', '.join(stacks)}, and is a table of EMS's own from this version on.",
            f"Rename it, in the database and in column results_table of `experiment`: "
            f"ALTER TABLE {name} RENAME TO {name}s; UPDATE experiment SET results_table = '{name}s' "
            f"WHERE results_table = '{name}'; and in the stack files: `results: {{table: {name}s}}`.",
        )


# The n-th brings version n to n + 1
MIGRATIONS: tuple[Migration, ...] = (
    *(_points, _platform, _newest, _used, _proposed, _files_left, _pilot, _output, _basis),
)
