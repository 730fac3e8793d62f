"""SQLite as the database uses it: one file, transactions begun by hand, and errors that name what to do.

WAL, so that notebooks read while runs write. `synchronous=FULL`: what is committed survives a crash of the process
and, as far as the disk keeps its word, a power cut. NaN is stored as NULL. Columns of doubles have no declared type:
one of SQLite's REAL columns would turn -0.0 into 0.0.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, func
from sqlalchemy.dialects.sqlite import dialect, insert
from sqlalchemy.pool import QueuePool

from ems.base import filesystems
from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.base.private import make_file, make_folder
from ems.databases import MAY, Claim, Condition
from ems.databases.migrations import Migration
from ems.databases.sql_backend import SqlBackend, mapped
from ems.databases.sqlite import results as sqlite_results
from ems.databases.states import Row
from ems.databases.tables import UtcTime
from ems.spool.batch import Batch

MAY_PASS = {
    sqlite3.SQLITE_BUSY: "others kept it locked",
    sqlite3.SQLITE_LOCKED: "others kept it locked",
    sqlite3.SQLITE_PROTOCOL: "others kept it locked",
    sqlite3.SQLITE_IOERR: "its disk failed to read or write",
    sqlite3.SQLITE_FULL: "its disk is full",
}
RESTORE = "end what runs (ems stop), put a whole copy in its place without files in -wal and -shm, and repeat"
STAYS = {
    sqlite3.SQLITE_NOTADB: ("is not an SQLite database", "Give ems:database in Pulumi.yaml another path."),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "Restore a backup, or save what can be read: sqlite3 FILE .recover"),
    sqlite3.SQLITE_READONLY: ("cannot be written", "Check the permissions of the file and of its folder: ls -la"),
    sqlite3.SQLITE_PERM: ("cannot be opened", "Check the permissions of the file and of its folder: ls -la"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "Check the permissions of the file and of its folder: ls -la"),
}
LOST = "Restore it from a backup; `ems database check` shows what is gone."


class SqliteBackend(SqlBackend):
    """`wait_s`: how long one call waits for somebody who keeps the lock; for those who come and go it waits on."""

    clock = func.strftime("%Y-%m-%d %H:%M:%f", "now", type_=UtcTime())
    dialect = dialect()

    def __init__(self, path: Path, wait_s: float, migrations: Sequence[Migration]) -> None:
        super().__init__(str(path), migrations)
        self._path = path
        self._wait_s = wait_s
        self._engine = self._make_engine()
        self._file: tuple[int, int] | None = None  # device and inode of what the connections have open

    def _make_engine(self) -> Engine:
        unlimited = 0  # each unfinished reading of results holds a connection
        engine = create_engine("sqlite://", creator=self._open, poolclass=QueuePool, pool_size=unlimited)
        event.listen(engine, "begin", _begin)
        return engine

    def _open(self, mode: str = "rw") -> sqlite3.Connection:
        self._refuse_network()
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=self._wait_s,
            isolation_level=None,  # transactions are begun by `_begin` alone
            check_same_thread=False,  # made by one thread, used by another
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _refuse_network(self) -> None:
        if kind := filesystems.network(self._path):
            raise DatabaseError(
                f"{self._path} lies on a network file system ({kind}), where SQLite loses data.",
                "Put it on a local disk: sqlite:////local/path as ems:database in Pulumi.yaml.",
            )

    def create(self) -> None:
        with self._mapped():
            self._make_file()
        super().create()

    def _make_file(self) -> None:
        try:
            make_folder(self._path.parent)
            if not self._path.exists():
                make_file(self._path)  # SQLite gives its other files the rights of this one
        except OSError as error:
            raise DatabaseError(f"{self._path} cannot be made: {error}.", "Check ems:database.") from error
        with closing(self._open("rwc")) as connection:
            _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"), self._wait_s)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        self._leave_replaced_file()
        engine = self._engine.execution_options(sqlite_begin="IMMEDIATE" if write else "DEFERRED")
        with self._mapped(), engine.begin() as connection:
            yield connection

    def _leave_replaced_file(self) -> None:
        """A file that was deleted, or replaced by a backup, lives on for those who had opened it, who write in vain."""
        try:
            about = self._path.stat()
        except OSError:
            found = None
        else:
            found = about.st_dev, about.st_ino
        if found != self._file:
            self._engine.dispose()
            self._file, self._is_current = found, False

    def _mapped(self) -> AbstractContextManager[None]:
        return mapped(sqlite3.Error, self._explained)

    def _explained(self, error: sqlite3.Error) -> DatabaseError:
        if not self._path.exists():
            return self.no_tables()
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest says which kind of it
        if code in MAY_PASS:
            message = f"The lab's database {self._path} does not answer: {MAY_PASS[code]} ({error})."
            return DatabaseUnavailable(message, "Nothing was changed: try again.")
        if code == sqlite3.SQLITE_ERROR and str(error).startswith("no such table"):
            return DatabaseError(f"The lab's database {self._path} has lost a table of EMS ({error}).", LOST)
        fault, hint = STAYS.get(
            code, ("refused a call", "If this is not a fault of the file, report it with: ems doctor")
        )
        return DatabaseError(f"The lab's database {self._path} {fault} ({error}).", hint)

    def product(self, connection: Connection) -> str:  # noqa: ARG002
        return f"SQLite {sqlite3.sqlite_version}"

    def role(self, connection: Connection) -> str:  # noqa: ARG002
        return ""

    def may(self, connection: Connection) -> tuple[str, ...]:  # noqa: ARG002
        return MAY if os.access(self._path, os.W_OK) and os.access(self._path.parent, os.W_OK) else MAY[:1]

    def faults(self, connection: Connection) -> list[str]:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        found = [] if mode == "wal" else [f"its journal_mode is {mode}, so that readers wait for writers: ems up lab"]
        damage = connection.exec_driver_sql("PRAGMA quick_check(1)").scalars().all()
        return found if damage == ["ok"] else [*found, f"the file is damaged ({damage[0]}): {RESTORE}"]

    def lock(self, connection: Connection, experiment_id: str) -> None:
        """BEGIN IMMEDIATE has locked everything."""

    def lock_schema(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has locked everything."""

    def put(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        statement = insert(table)
        given = {name: statement.excluded[name] for name in rows[0]}
        keys = list(table.primary_key.columns)
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=given), list(rows))

    def put_new(self, connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
        statement = insert(table).values(**values).on_conflict_do_nothing()
        return connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount == 1

    def has_table(self, connection: Connection, name: str) -> bool:
        found = "SELECT count(*) FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE"
        return bool(_raw(connection).execute(found, (name,)).fetchone()[0])

    def put_results(self, connection: Connection, row: Row, claim: Claim, batch: Batch) -> int:  # noqa: ARG002
        return sqlite_results.store(_raw(connection), claim.results_table, claim.experiment_id, batch)

    def check_columns(self, connection: Connection, table: str, batch: Batch) -> None:
        sqlite_results.check_columns(_raw(connection), table, batch)

    def stored_points(self, connection: Connection, row: Row) -> Iterator[int]:
        return sqlite_results.stored_points(_raw(connection), row["results_table"], row["id"], row["rows_stored"])

    def rows_of(self, connection: Connection, row: Row, points: Sequence[int]) -> Iterator[Batch]:
        return sqlite_results.read_points(_raw(connection), row["results_table"], row["id"], points)

    def read(
        self,
        connection: Connection,
        row: Row,
        columns: Sequence[str] | None,
        where: Sequence[Condition],
        chunk_rows: int,
    ) -> Iterator[Batch]:
        return sqlite_results.read(_raw(connection), row["results_table"], row["id"], columns, where, chunk_rows)


def _begin(connection: Connection) -> None:
    """As long as others go on committing, the lock is only shared; who waits in vain for one that keeps it gives up."""
    raw, begin = _raw(connection), f"BEGIN {connection.get_execution_options()['sqlite_begin']}"
    while True:
        seen = _commits(raw)
        try:
            raw.execute(begin)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or _commits(raw) == seen:
                raise


def _commits(raw: sqlite3.Connection) -> int:
    """A number that changes whenever somebody else has committed."""
    return int(raw.execute("PRAGMA data_version").fetchone()[0])


def _raw(connection: Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


def _patiently(change: Any, wait_s: float) -> None:
    """Repeat what SQLite refuses at once, without its own waiting, while others use the file."""
    until = time.monotonic() + wait_s
    while True:
        try:
            change()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)
