"""BigQuery as the database uses it: what is read is not locked, and a change is one script.

All of a change is in one transaction, with a last condition that the experiment's row and its newest run still are what
the decision was made on; the count of changed rows says so. Rows of results are loaded before, straight into their
table, and count once such a script has noted their batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from google.api_core.exceptions import NotFound
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects import registry
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from ems.databases import MAY, Claim, Condition, columns, tables
from ems.databases.bigquery import results as bigquery_results
from ems.databases.bigquery.dialect import Dialect, Session, Statement, compiled, merge, script
from ems.databases.bigquery.results import GROWN, LOADED
from ems.databases.bigquery.service import Contended, Service
from ems.databases.migrations import Migration
from ems.databases.rules import Change
from ems.databases.sql_backend import SqlBackend, Write, run_statements, update_of
from ems.databases.states import Row, Values
from ems.databases.tables import UtcTime, experiment, run
from ems.spool.batch import Batch

READ_FROM = (
    *("state", "attempt", "wanted_attempt", "cancel_requested", "max_hours", "deadline_at", "results_table"),
    "points_total",  # which tells of a round that was proposed meanwhile
)
LOADED_BATCH = Table(
    LOADED,
    MetaData(),
    Column("experiment_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
)

registry.register("bigquery.ems", "ems.databases.bigquery.dialect", "Dialect")


class BigqueryBackend(SqlBackend):
    """What BigQuery brings to the SQL database: each statement or script is a job of `service`."""

    clock = func.current_timestamp(type_=UtcTime())
    dialect = Dialect(paramstyle="named")

    def __init__(self, url: str, service: Service, migrations: Sequence[Migration]) -> None:
        super().__init__(url, migrations)
        self.service = service
        self._engine = create_engine("bigquery+ems://", creator=lambda: Session(service), poolclass=NullPool)

    def close(self) -> None:
        self.service.close()

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:  # noqa: ARG002
        """Not one for the service: each statement holds at once."""
        with self.service.mapped(), self._engine.begin() as connection:
            yield connection

    def lock(self, connection: Connection, experiment_id: str) -> None:
        """Nothing is locked: each change looks whether all is as it was."""

    def lock_schema(self, connection: Connection) -> None:
        """Each statement that makes tables can be repeated."""

    # Rows of the registry

    def put(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:  # noqa: ARG002
        keys = [column.name for column in table.primary_key]
        self.service.query(*merge(table, rows, keys, True, self.dialect))

    def put_new(self, connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return self.service.query(*merge(table, [values], ["id"], False, self.dialect)).num_dml_affected_rows == 1

    def write(self, connection: Connection, row: Row, change: Change) -> None:  # noqa: ARG002
        """Contended, and nothing changed, if the row is not as it was read."""
        guard = self._guard(row, change.experiment)
        others = [compiled(statement, self.dialect) for statement in run_statements(row, change)]
        others += self._replacing(tables.output, change.outputs)
        if others:
            is_beat = not (change.new_run or change.proposed or change.outputs) and "state" not in change.run
            statements, parameters = script([guard, *others])
            ((done,),) = [found.values() for found in self.service.query(_guarded(statements, is_beat), parameters)]
        else:
            done = bool(self.service.query(*guard).num_dml_affected_rows)
        _check_done(row, done)

    def _replacing(self, table: Table, rows: Sequence[Values]) -> list[Statement]:
        """What writes rows in a script: those of the same key go before."""
        if not rows:
            return []
        same = [column == bindparam(f"key_{column.name}") for column in table.primary_key]
        keys = [{f"key_{column.name}": row[column.name] for column in table.primary_key} for row in rows]
        return [
            compiled(statement, self.dialect, given)
            for statement, given in ((delete(table).where(*same), keys), (insert(table), rows))
        ]

    def _guard(self, row: Row, values: Mapping[str, Any]) -> Statement:
        return compiled(update_of(row).where(*_unchanged(row)).values(**values), self.dialect)

    # Results

    def has_table(self, connection: Connection, name: str) -> bool:  # noqa: ARG002
        return self.service.describe(name) is not None

    def store(
        self,
        connection: Connection,  # noqa: ARG002
        row: Row,
        claim: Claim,
        batch: Batch,
        also: Sequence[Write],
    ) -> None:
        loaded = self._loaded(claim, batch)
        others = [compiled(statement, self.dialect, parameters) for statement, parameters in also]
        grown = experiment.c.rows_stored + literal_column(GROWN)
        self._send_batch(row, [*loaded, *others, self._guard(row, {"rows_stored": grown})])

    def put_results(self, connection: Connection, row: Row, claim: Claim, batch: Batch) -> int:  # noqa: ARG002
        """Known only while the script runs: 0, as `store` does not ask here."""
        self._send_batch(row, [*self._loaded(claim, batch), self._guard(row, {"state": row["state"]})])
        return 0

    def _loaded(self, claim: Claim, batch: Batch) -> list[Statement]:
        """Load the batch's rows; what makes them count, in a script that keeps `GROWN`."""
        table, id = claim.results_table, claim.experiment_id
        if not columns.has_table(table, batch):
            number = bigquery_results.new_number(claim.attempt)
            return [bigquery_results.unless_done(id, number), bigquery_results.commitment(id, number, 0)]
        layout = bigquery_results.make_ready(self.service, table, batch)
        rows = bigquery_results.newest(batch)
        if len(rows):
            number = bigquery_results.load(self.service, claim, layout, rows)
        else:
            number = bigquery_results.new_number(claim.attempt)
        statements = [bigquery_results.unless_done(id, number)]
        if batch.replaces:
            statements.append(bigquery_results.removal(table, id, batch.replaces))
        if not set(rows.points) <= set(batch.replaces):
            statements.append(bigquery_results.key_removal(table, id, number, rows.points))
        return [*statements, bigquery_results.commitment(id, number, len(rows))]

    def _send_batch(self, row: Row, changes: Sequence[Statement]) -> None:
        statements, parameters = script(changes)
        ((done,),) = [found.values() for found in self.service.query(_storing(statements), parameters)]
        _check_done(row, done)

    def check_columns(self, connection: Connection, table: str, batch: Batch) -> None:  # noqa: ARG002
        bigquery_results.check_columns(self.service, table, batch)

    def stored_points(self, connection: Connection, row: Row) -> Iterator[int]:
        """Not asked for: `points` reads rows and marks by one query, so from one snapshot."""
        raise NotImplementedError

    def rows_of(self, connection: Connection, row: Row, points: Sequence[int]) -> Iterator[Batch]:  # noqa: ARG002
        return bigquery_results.rows_of(self.service, row["results_table"], row["id"], points)

    def read(
        self,
        connection: Connection,  # noqa: ARG002
        row: Row,
        columns: Sequence[str] | None,
        where: Sequence[Condition],
        chunk_rows: int,
    ) -> Iterator[Batch]:
        return bigquery_results.read(self.service, row["results_table"], row["id"], columns, where, chunk_rows)

    # Tables

    def make_tables(self, connection: Connection) -> None:  # noqa: ARG002
        self.service.make_dataset()
        self.service.query(";\n".join(self.definitions()))

    def definitions(self) -> list[str]:
        """The statements that make EMS's tables and note their version, where these are missing."""
        every = [*tables.metadata.sorted_tables, LOADED_BATCH]
        made = [CreateTable(table, if_not_exists=True) for table in every]
        version = (
            f"MERGE schema_version USING (SELECT 1) AS new ON TRUE "
            f"WHEN NOT MATCHED THEN INSERT (version) VALUES ({self.version})"
        )
        return [*(str(table.compile(dialect=self.dialect)).strip() for table in made), version]

    def found_version(self, connection: Connection) -> int | None:
        try:
            version: int | None = connection.execute(select(func.max(tables.schema_version.c.version))).scalar_one()
        except NotFound:
            return None
        return version

    # What `check` asks

    def product(self, connection: Connection) -> str:  # noqa: ARG002
        found = self.service.describe(tables.schema_version.name)
        return f"Google BigQuery in {found.location}" if found else "Google BigQuery"

    def role(self, connection: Connection) -> str:
        return str(connection.exec_driver_sql("SELECT SESSION_USER()").scalar_one())

    def may(self, connection: Connection) -> tuple[str, ...]:  # noqa: ARG002
        asked = {
            "read": ("experiment", "bigquery.tables.getData"),
            "run experiments": ("experiment", "bigquery.tables.updateData"),
            "describe the lab": ("experimenter", "bigquery.tables.updateData"),
            "change tables": ("schema_version", "bigquery.tables.update"),
        }
        return tuple(may for may in MAY if self.service.permissions(asked[may][0], [asked[may][1]]))

    def counts_rows(self, connection: Connection, table: str) -> bool:  # noqa: ARG002
        return False  # some never came to count, and each look costs

    def faults(self, connection: Connection) -> list[str]:  # noqa: ARG002
        return []


def _check_done(row: Row, done: bool) -> None:
    if not done:
        raise Contended(f"experiment {row['id']}")


def _unchanged(row: Row) -> list[ColumnElement[bool]]:
    """Whether the experiment and its newest run are as they were read."""
    mine = run.c.experiment_id == row["id"], run.c.attempt == row["attempt"]
    held = select(run.c.attempt).where(*mine, run.c.state == row["run_state"], run.c.lease_until == row["lease_until"])
    same = [experiment.c[name] == row[name] for name in READ_FROM]
    return [experiment.c.id == row["id"], *same, held.exists() if row["run_state"] else ~held.exists()]


def _storing(statements: Sequence[str]) -> str:
    """The guard comes last, as it writes what the others have counted."""
    lines = [
        f"DECLARE {GROWN} INT64 DEFAULT 0",
        "BEGIN TRANSACTION",
        *statements,
        "IF @@row_count = 1 THEN COMMIT TRANSACTION; SELECT TRUE; ELSE ROLLBACK TRANSACTION; SELECT FALSE; END IF",
    ]
    return ";\n".join(lines)


def _guarded(statements: Sequence[str], is_beat: bool) -> str:
    """A beat needs no transaction, which would abort, and be aborted by, those of others."""
    begin, commit, back = (
        ("", "", "") if is_beat else ("BEGIN TRANSACTION;", "COMMIT TRANSACTION;", "ROLLBACK TRANSACTION;")
    )
    guard, *others = statements
    changes = ";\n".join(others)
    return (
        f"{begin}\n{guard};\nIF @@row_count = 1 THEN {changes};\n{commit} SELECT TRUE; ELSE {back} SELECT FALSE; END IF"
    )
