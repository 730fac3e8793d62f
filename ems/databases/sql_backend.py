"""What an SQL service brings, in SQLAlchemy Core: transactions, locks, results tables, and the tables' version."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Dialect, Executable, Table, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError

from ems.base.errors import DatabaseError, NoTables
from ems.databases import Claim, Condition, tables
from ems.databases.columns import has_table
from ems.databases.migrations import MIGRATIONS, Migration
from ems.databases.rules import Change
from ems.databases.states import Row
from ems.databases.tables import charge, experiment, proposed, run
from ems.spool.batch import Batch

Write = tuple[Executable, Sequence[Mapping[str, Any]]]
"""A statement, and the parameters for each time that it is executed."""


class SqlBackend(ABC):
    """What one SQL service brings, and what all have in common. `name`: of the database, in messages."""

    clock: ColumnElement[Any]
    """The service's own clock, as UtcTime."""
    dialect: Dialect

    def __init__(self, name: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self.name = name
        self._migrations = migrations
        self._is_current = False

    # Transactions

    @abstractmethod
    def transaction(self, *, write: bool) -> AbstractContextManager[Connection]:
        """One transaction, its foreign errors mapped; a read-only one sees a single snapshot."""

    @abstractmethod
    def lock(self, connection: Connection, experiment_id: str) -> None:
        """In a writing transaction, keep others from changing this experiment until it ends."""

    @abstractmethod
    def lock_schema(self, connection: Connection) -> None:
        """Keep others from making or migrating tables until the transaction ends."""

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only transaction; DatabaseError unless the tables have the version that EMS needs."""
        with self.transaction(write=False) as connection:
            self.check_version(connection)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A writing transaction; DatabaseError unless the tables have the version that EMS needs."""
        with self.transaction(write=True) as connection:
            self.check_version(connection)
            yield connection

    @abstractmethod
    def close(self) -> None:
        """Close what was opened."""

    # Rows of the registry

    @abstractmethod
    def put(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or update those of the same key; at least one, and all with the same columns."""

    @abstractmethod
    def put_new(self, connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
        """Insert a row; False, and nothing changed, if there is one of the same key."""

    def write(self, connection: Connection, row: Row, change: Change) -> None:
        """Write what was decided on `row`, as it was read in the same transaction."""
        for statement in (update_of(row).values(**change.experiment), *run_statements(row, change)):
            connection.execute(statement)
        if change.outputs:
            self.put(connection, tables.output, change.outputs)

    # Results

    @abstractmethod
    def has_table(self, connection: Connection, name: str) -> bool:
        """Whether there is a table or view of this name."""

    def store(self, connection: Connection, row: Row, claim: Claim, batch: Batch, also: Sequence[Write]) -> None:
        """Write the batch's rows, and `also`; count `rows_stored`. `row`: the experiment's, read just before."""
        grown = self.put_results(connection, row, claim, batch) if has_table(claim.results_table, batch) else 0
        for statement, parameters in also:
            connection.execute(statement, parameters)
        connection.execute(update_of(row).values(rows_stored=experiment.c.rows_stored + grown))

    @abstractmethod
    def put_results(self, connection: Connection, row: Row, claim: Claim, batch: Batch) -> int:
        """Write the batch's rows into its results table; by how many rows the table grew."""

    @abstractmethod
    def check_columns(self, connection: Connection, table: str, batch: Batch) -> None:
        """As `Database.check_columns`."""

    @abstractmethod
    def stored_points(self, connection: Connection, row: Row) -> Iterator[int]:
        """The points that have rows, ascending; `row`: the experiment's."""

    @abstractmethod
    def rows_of(self, connection: Connection, row: Row, points: Sequence[int]) -> Iterator[Batch]:
        """The rows of these points, in batches of whole points; `row`: the experiment's."""

    @abstractmethod
    def read(
        self,
        connection: Connection,
        row: Row,
        columns: Sequence[str] | None,
        where: Sequence[Condition],
        chunk_rows: int,
    ) -> Iterator[Batch]:
        """As `Database.results`; `row`: the experiment's."""

    # What `check` and `setup` ask

    @abstractmethod
    def product(self, connection: Connection) -> str:
        """The service's name and version."""

    @abstractmethod
    def role(self, connection: Connection) -> str:
        """As whom EMS came in."""

    @abstractmethod
    def may(self, connection: Connection) -> tuple[str, ...]:
        """Of MAY, what this role may do; asked only where there are tables."""

    def counts_rows(self, connection: Connection, table: str) -> bool:  # noqa: ARG002
        """Whether this role can count the rows of that results table."""
        return True

    @abstractmethod
    def faults(self, connection: Connection) -> list[str]:
        """What is wrong beyond the tables' version."""

    def role_statements(self) -> Sequence[str]:
        """What gives the roles of a lab their rights, whatever was there before."""
        return ()

    # The tables' version

    @property
    def version(self) -> int:
        """The version of the tables that this EMS needs."""
        return 1 + len(self._migrations)

    def create(self) -> None:
        """As `Database.create`."""
        with self.transaction(write=True) as connection:
            self.lock_schema(connection)
            found = self.found_version(connection)
            if found is None:
                self.make_tables(connection)
            else:
                self._migrate(connection, found)

    def make_tables(self, connection: Connection) -> None:
        """Make EMS's tables, and note their version."""
        tables.metadata.create_all(connection)
        connection.execute(insert(tables.schema_version).values(version=self.version))

    def _migrate(self, connection: Connection, found: int) -> None:
        self._refuse_newer(found)
        for migration in self._migrations[found - 1 :]:
            migration(connection)
        if found < self.version:
            version = tables.schema_version
            older = version.c.version < self.version  # BigQuery updates nothing without a condition
            connection.execute(update(version).where(older).values(version=self.version))

    def found_version(self, connection: Connection) -> int | None:
        """The version that the tables note; None if there are no tables."""
        if not inspect(connection).has_table(tables.schema_version.name):
            return None
        return int(connection.execute(select(tables.schema_version.c.version)).scalar_one())

    def check_version(self, connection: Connection) -> None:
        """DatabaseError unless the tables have the version that EMS needs; asked until they have it once."""
        if self._is_current:
            return
        found = self.found_version(connection)
        if found is None:
            raise self.no_tables()
        self._refuse_newer(found)
        if found < self.version:
            raise DatabaseError(
                f"{self.name} has tables of version {found}; this EMS needs version {self.version}.",
                "Bring them up to date: ems up lab",
            )
        self._is_current = True

    def _refuse_newer(self, found: int) -> None:
        if found > self.version:
            raise DatabaseError(
                f"{self.name} has tables of version {found}; this EMS knows versions up to {self.version}.",
                "Upgrade EMS: pip install --upgrade ems-experiments",
            )

    def no_tables(self) -> DatabaseError:
        """The error for a database that lacks EMS's tables."""
        return NoTables(f"The lab's database has no tables yet: {self.name}.", "Make them: ems up lab")


@contextmanager
def mapped(foreign: type[Exception], explained: Callable[[Any], DatabaseError]) -> Iterator[None]:
    """Errors of a database's driver, `foreign`, as those of EMS, also where SQLAlchemy has wrapped them."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, foreign):
            raise
        raise explained(error.orig) from error
    except foreign as error:
        raise explained(error) from error


def update_of(row: Row) -> Any:
    """An update of the experiment's row, still without values."""
    return update(experiment).where(experiment.c.id == row["id"])


def run_statements(row: Row, change: Change) -> list[Executable]:
    """What a change writes beside the experiment's row."""
    newest = run.c.experiment_id == row["id"], run.c.attempt == row["attempt"]
    written: list[Executable] = [update(run).where(*newest).values(**change.run)] if change.run else []
    written += [insert(run).values(**change.new_run)] if change.new_run else []
    written += [insert(proposed).values(**part) for part in change.proposed]
    written += [insert(charge).values(**change.charge)] if change.charge else []
    return written + ([_recharge(row, **change.recharge)] if change.recharge else [])


def _recharge(row: Row, attempt: int, **values: Any) -> Executable:
    of_run = charge.c.experiment_id == row["id"], charge.c.attempt == attempt
    return update(charge).where(*of_run).values(**values)
