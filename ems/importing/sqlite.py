"""A table or view in a file of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ems.base.errors import UserError
from ems.importing.source import Reading
from ems.importing.tables import TableSource, chosen
from ems.node.job.columns import KnownTypes
from ems.spool.batch import ColumnType, Value

MAGIC = b"SQLite format 3\0"
PAGE_CELLS = 200_000
BOOLEANS = frozenset({"BOOLEAN", "BOOL"})


def is_sqlite(path: Path) -> bool:
    """Whether this is a file of SQLite, by how it begins."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class SqliteSource(TableSource):
    """Read in one transaction, so that both readings see the same rows; in the order of keys."""

    kind = "sqlite"

    def __init__(self, path: Path, name: str, reading: Reading) -> None:
        super().__init__()
        self.name = name
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        self._connection.text_factory = _text
        try:
            self._connection.execute("BEGIN")
            self.table = chosen(reading.table, self._tables(), name)
            described = self._ask("SELECT name, type, pk FROM pragma_table_xinfo(?) WHERE hidden != 1", self.table)
            self._declared = {column: kind.upper() for column, kind, _ in described}
            self._keys = [column for column, _, place in sorted(described, key=lambda row: row[2]) if place]
            self._order = self._order_of()
            ((self.size,),) = self._ask(f"SELECT count(*) FROM {_quoted(self.table)}")
        except sqlite3.Error as error:
            self._connection.close()
            raise self._refused(error) from error

    def _ask(self, sql: str, *values: str) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()

    def _tables(self) -> list[str]:
        listed = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%'"
        return [name for (name,) in self._ask(f"{listed} ESCAPE '\\' ORDER BY name")]

    def _order_of(self) -> str:
        """Of a view none: it comes as SQLite finds its rows."""
        try:
            self._ask(f"SELECT rowid FROM {_quoted(self.table)} LIMIT 0")
            is_view = self._ask("SELECT 1 FROM sqlite_master WHERE name = ? AND type = 'view'", self.table)
            self.keeps_order = not is_view
            return "" if is_view else " ORDER BY rowid"
        except sqlite3.OperationalError:
            self.keeps_order = bool(self._keys)
            return f" ORDER BY {', '.join(map(_quoted, self._keys))}" if self._keys else ""

    def names(self) -> list[str]:
        return list(self._declared)

    def default_types(self) -> Mapping[str, ColumnType]:
        """By SQLite's own rule of affinities; none of a column that is declared without a type."""
        return {name: _affinity(declared) for name, declared in self._declared.items() if declared not in {"", "BLOB"}}

    def pages(self, types: KnownTypes) -> Iterator[Sequence[tuple[Any, ...]]]:  # noqa: ARG002
        selected = ", ".join(map(_quoted, self._declared))
        flags = [index for index, kind in enumerate(self._declared.values()) if kind in BOOLEANS]
        try:
            cursor = self._connection.execute(f"SELECT {selected} FROM {_quoted(self.table)}{self._order}")
            while rows := cursor.fetchmany(max(1, PAGE_CELLS // len(self._declared))):
                yield [_flagged(row, flags) for row in rows] if flags else rows
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def cleaned(self, name: str, value: Any, declared: ColumnType | None) -> Value:
        if isinstance(value, bytes):
            raise ValueError("are neither text in UTF-8 nor a number")
        return super().cleaned(name, value, declared)

    def _refused(self, error: sqlite3.Error) -> UserError:
        return UserError(f"{self.name} cannot be read: {error}.", "Is it whole, and yours to read? See: ls -l")

    def close(self) -> None:
        self._connection.close()


def _text(data: bytes) -> str | bytes:
    """What is not UTF-8 stays bytes, so that it is refused with its row."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _flagged(row: tuple[Any, ...], flags: Sequence[int]) -> tuple[Any, ...]:
    """SQLite stores booleans as 0 and 1: in columns declared so they are booleans again."""
    values = list(row)
    for index in flags:
        if values[index] in (0, 1) and type(values[index]) is int:
            values[index] = bool(values[index])
    return tuple(values)


def _affinity(declared: str) -> ColumnType:
    if declared in BOOLEANS:
        return "bool"
    if "INT" in declared:
        return "int64"
    return "text" if any(word in declared for word in ("CHAR", "CLOB", "TEXT", "DATE", "TIME")) else "float64"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
