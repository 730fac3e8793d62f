"""What all SQL services share: giving roles their rights, and looking whether all is well."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime

from sqlalchemy import ClauseElement, Connection, Insert, func, insert, literal, quoted_name, select, table
from sqlalchemy.schema import CreateIndex, CreateTable

from ems.base.errors import DatabaseError
from ems.databases import MAY, Checkup, columns, tables
from ems.databases.sql_backend import SqlBackend

ROUND_TRIPS = 7


class SqlSetup:
    """Sets up and looks over any SQL service, by what its backend brings."""

    def __init__(self, backend: SqlBackend) -> None:
        self._backend = backend

    def setup(self) -> None:
        """As `Database.setup`."""
        self._backend.create()
        with self._backend.transaction(write=True) as connection:
            for statement in self._backend.role_statements():
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def script(self) -> str:
        """As `Database.setup_script`."""
        every = tables.metadata.sorted_tables
        making = [CreateTable(table, if_not_exists=True) for table in every]
        indexing = [CreateIndex(index, if_not_exists=True) for table in every for index in table.indexes]
        statements: list[ClauseElement] = [*making, *indexing, self._version_statement()]
        compiled = (
            str(statement.compile(dialect=self._backend.dialect, compile_kwargs={"literal_binds": True}))
            for statement in statements
        )
        return "".join(f"{statement.strip()};\n\n" for statement in (*compiled, *self._backend.role_statements()))

    def _version_statement(self) -> Insert:
        version = tables.schema_version
        unknown = ~select(version.c.version).exists()
        return insert(version).from_select(["version"], select(literal(self._backend.version)).where(unknown))

    def check(self) -> Checkup:
        """As `Database.check`."""
        with self._backend.transaction(write=False) as connection:
            version = self._backend.found_version(connection)
            latency_s, clock_ahead_s = self._measured(connection)
            return Checkup(
                service=self._backend.product(connection),
                role=self._backend.role(connection),
                may=self._backend.may(connection) if version else (),
                tables_version=version,
                needed_version=self._backend.version,
                latency_s=latency_s,
                clock_ahead_s=clock_ahead_s,
                faults=(
                    *self._version_faults(connection),
                    *self._lost(connection, version),
                    *self._backend.faults(connection),
                ),
            )

    def _version_faults(self, connection: Connection) -> list[str]:
        try:
            self._backend.check_version(connection)
        except DatabaseError as error:
            return [str(error)]
        return []

    def _lost(self, connection: Connection, version: int | None) -> list[str]:
        """Tables that should be there and are not."""
        if version is None:
            return []
        own = [name for name in tables.metadata.tables if not self._backend.has_table(connection, name)]
        if own:
            return [f"tables of EMS are gone: {', '.join(own)}: restore them from a backup"]
        experiment = tables.experiment.c
        of_table = select(experiment.results_table, func.sum(experiment.rows_stored)).where(experiment.rows_stored > 0)
        stored = connection.execute(of_table.group_by(experiment.results_table)).all()
        return [fault for name, rows in stored if (fault := self._lost_rows(connection, name, rows))]

    def _lost_rows(self, connection: Connection, name: str, stored: int) -> str:
        """What is wrong with a results table in which so many rows were stored."""
        if not self._backend.has_table(connection, name):
            return str(columns.lost(name, stored))
        if MAY[0] not in self._backend.may(connection) or not self._backend.counts_rows(connection, name):
            return ""
        rows = connection.execute(select(func.count()).select_from(table(quoted_name(name, True)))).scalar_one()
        if rows == stored:
            return ""
        return (
            f"results table {name!r} has {rows} rows, but {stored} were stored: somebody removed or added some. "
            "`ems status` says what was stored, `ems results` what is there"
        )

    def _measured(self, connection: Connection) -> tuple[float, float]:
        """Seconds of a round trip, and what the database's clock is ahead of this machine's; medians."""
        took, ahead = [], []
        for _ in range(ROUND_TRIPS):
            start = time.perf_counter()
            there: datetime = connection.execute(select(self._backend.clock)).scalar_one()
            took.append(time.perf_counter() - start)
            ahead.append((there - datetime.now(UTC)).total_seconds() + took[-1] / 2)
        return statistics.median(took), statistics.median(ahead)
