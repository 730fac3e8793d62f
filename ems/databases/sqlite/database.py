"""The lab's database in one SQLite file: `sqlite:///path from the lab's folder` or `sqlite:////absolute path`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, text

from ems.base.errors import UserError
from ems.databases import Experiment
from ems.databases.migrations import MIGRATIONS, Migration
from ems.databases.pulled import Pulling
from ems.databases.snippets import Language
from ems.databases.sql import SqlDatabase
from ems.databases.sql_backend import SqlBackend
from ems.databases.sql_rows import SqlRows
from ems.databases.sqlite import snippets as sqlite_snippets
from ems.databases.sqlite.backend import SqliteBackend
from ems.databases.states import Row

WAIT_S = 10.0
ALLOWED = "Allowed: sqlite:///path from the lab's folder, or sqlite:////absolute/path."


def connect(url: str, root: Path) -> SqliteDatabase:
    """The database in the file that `url` names, from `root` if the path is relative; UserError if it names none."""
    return SqliteDatabase(root / path_of(url))


def path_of(url: str) -> str:
    """The file that `url` names; UserError if it names none."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path.strip("/"):
        raise UserError(
            f"ems:database is {url!r}: that names no file, and a database in memory keeps nothing.", ALLOWED
        )
    if {"?", "#", "\0"} & set(path) or ":memory:" in path:
        raise UserError(f"ems:database is {url!r}: options, `#` and :memory: have no meaning here.", ALLOWED)
    return path


class SqliteDatabase(SqlDatabase, Pulling):
    """`wait_s`: how long one call waits for others that hold the lock."""

    def __init__(self, path: Path, wait_s: float = WAIT_S, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        super().__init__(SqliteBackend(path, wait_s, migrations))
        self._path = path

    def create(self) -> None:
        super().create()
        self.identity()  # of all copies that are made from now on

    def identity(self) -> str:
        with self._backend.writing() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS database_identity (id TEXT NOT NULL)"))
            if found := connection.execute(text("SELECT id FROM database_identity")).scalar():
                return str(found)
            made_up = str(uuid.uuid4())
            connection.execute(text("INSERT INTO database_identity VALUES (:id)"), {"id": made_up})
            return made_up

    def row(self, experiment_id: str) -> Row | None:
        return self._rows.find(experiment_id)

    def at(self, moment: datetime) -> SqliteDatabase:
        return _Then(self._path, self._backend, moment)

    def snippet(self, language: Language, experiment: Experiment, root: Path) -> str:
        of = experiment.registration
        return sqlite_snippets.snippet(language, of.stack, of.results_table, self._path, root)


class _Then(SqliteDatabase):
    """A database by another clock, over what one has open."""

    def __init__(self, path: Path, backend: SqlBackend, moment: datetime) -> None:
        SqlDatabase.__init__(self, backend, _RowsThen(backend, moment))
        self._path = path


class _RowsThen(SqlRows):
    """The rows as they are, read by another clock."""

    def __init__(self, backend: SqlBackend, moment: datetime) -> None:
        super().__init__(backend)
        self._moment = moment

    def _found(self, connection: Connection, experiment_id: str) -> Row | None:
        found = super()._found(connection, experiment_id)
        return None if found is None else {**found, "now": self._moment}
