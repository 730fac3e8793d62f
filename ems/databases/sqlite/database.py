"""The lab's database in one SQLite file: `sqlite:///path from the lab's folder` or `sqlite:////absolute path`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ems.base.errors import UserError
from ems.databases import Experiment
from ems.databases.migrations import MIGRATIONS, Migration
from ems.databases.snippets import Language
from ems.databases.sql import SqlDatabase
from ems.databases.sqlite import snippets as sqlite_snippets
from ems.databases.sqlite.backend import SqliteBackend

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


class SqliteDatabase(SqlDatabase):
    """`wait_s`: how long one call waits for others that hold the lock."""

    def __init__(self, path: Path, wait_s: float = WAIT_S, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        super().__init__(SqliteBackend(path, wait_s, migrations))
        self._path = path

    def snippet(self, language: Language, experiment: Experiment, root: Path) -> str:
        of = experiment.registration
        return sqlite_snippets.snippet(language, of.stack, of.results_table, self._path, root)
