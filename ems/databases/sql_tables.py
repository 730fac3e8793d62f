"""What all SQL services share beneath experiments: transactions' hooks, tables' version, the rows of `ems:lab`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, insert, inspect, select, update

from ems.databases import Claim, Database, Project, R, Record, rules, tables
from ems.databases.migrations import MIGRATIONS, Migration
from ems.databases.tables import TABLE_OF
from ems.errors import DatabaseError
from ems.spool.batch import Batch


class SqlTables(Database):
    clock: ColumnElement[Any]
    """The service's own clock, as UtcTime."""

    def __init__(self, name: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._name = name
        self._migrations = migrations
        self._is_current = False

    @abstractmethod
    def _transaction(self, *, write: bool) -> AbstractContextManager[Connection]:
        """One transaction, its foreign errors mapped; a read-only one sees a single snapshot."""

    @abstractmethod
    def _lock(self, connection: Connection, experiment_id: str) -> None:
        """In a writing transaction, keep others from changing this experiment until it ends."""

    @abstractmethod
    def _lock_schema(self, connection: Connection) -> None:
        """Keep others from making or migrating tables until the transaction ends."""

    @abstractmethod
    def _put(self, connection: Connection, table: Table, values: dict[str, Any]) -> None:
        """Insert a row, or update that of the same key."""

    @abstractmethod
    def _put_new(self, connection: Connection, table: Table, values: dict[str, Any]) -> bool:
        """Insert a row; False, and nothing changed, if there is one of the same key."""

    @abstractmethod
    def _store(self, connection: Connection, claim: Claim, batch: Batch) -> int:
        """Write the batch's rows into its results table; by how many rows the table grew."""

    @abstractmethod
    def _stored_points(self, connection: Connection, row: Any) -> Iterator[int]:
        """The points that have rows, ascending; `row`: the experiment's."""

    @abstractmethod
    def _rows_of(self, connection: Connection, row: Any, points: Sequence[int]) -> Iterator[Batch]:
        """The rows of these points, in batches of whole points; `row`: the experiment's."""

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._transaction(write=False) as connection:
            self._check_version(connection)
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._transaction(write=True) as connection:
            self._check_version(connection)
            yield connection

    # Schema

    @property
    def _version(self) -> int:
        return 1 + len(self._migrations)

    def create(self) -> None:
        with self._transaction(write=True) as connection:
            self._lock_schema(connection)
            found = self._found_version(connection)
            if found is None:
                tables.metadata.create_all(connection)
                connection.execute(insert(tables.schema_version).values(version=self._version))
            else:
                self._migrate(connection, found)

    def _migrate(self, connection: Connection, found: int) -> None:
        self._refuse_newer(found)
        for migration in self._migrations[found - 1 :]:
            migration(connection)
        if found < self._version:
            version = tables.schema_version
            older = version.c.version < self._version  # BigQuery updates nothing without a condition
            connection.execute(update(version).where(older).values(version=self._version))

    def _found_version(self, connection: Connection) -> int | None:
        if not inspect(connection).has_table(tables.schema_version.name):
            return None
        return int(connection.execute(select(tables.schema_version.c.version)).scalar_one())

    def _check_version(self, connection: Connection) -> None:
        if self._is_current:
            return
        found = self._found_version(connection)
        if found is None:
            raise self._no_tables()
        self._refuse_newer(found)
        if found < self._version:
            raise DatabaseError(
                f"{self._name} has tables of version {found}; this EMS needs version {self._version}.",
                "Bring them up to date: ems up lab",
            )
        self._is_current = True

    def _refuse_newer(self, found: int) -> None:
        if found > self._version:
            raise DatabaseError(
                f"{self._name} has tables of version {found}; this EMS knows versions up to {self._version}.",
                "Upgrade EMS: pip install --upgrade ems-experiments",
            )

    def _no_tables(self) -> DatabaseError:
        return DatabaseError(f"The lab's database has no tables yet: {self._name}.", "Make them: ems up lab")

    # Experimenters, projects, funding, clusters

    def upsert(self, record: Record) -> None:
        with self._writing() as connection:
            if isinstance(record, Project):
                rules.check_parent(record, {row.id: row.parent for row in connection.execute(select(tables.project))})
            self._put(connection, TABLE_OF[type(record)], asdict(record))

    def missing(self, experimenter: str, project: str, funding: str) -> list[tuple[str, str, list[str]]]:
        with self._reading() as connection:
            return self._missing(connection, experimenter, project, funding)

    def _missing(self, connection: Connection, *ids: str) -> list[tuple[str, str, list[str]]]:
        absent = []
        for table, id in zip((tables.experimenter, tables.project, tables.funding), ids, strict=True):
            known = list(connection.execute(select(table.c.id).order_by(table.c.id)).scalars())
            if id not in known:
                absent.append((table.name, id, known))
        return absent

    def record(self, kind: type[R], id: str) -> R | None:
        table = TABLE_OF[kind]
        with self._reading() as connection:
            row = connection.execute(select(table).where(table.c.id == id)).mappings().one_or_none()
        return None if row is None else kind(**row)
