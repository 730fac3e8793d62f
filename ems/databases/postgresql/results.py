"""Filling results tables in PostgreSQL by binary COPY, straight into the keyed table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import compress, repeat
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.errors import UniqueViolation

from ems.base.errors import DatabaseError
from ems.databases import columns
from ems.databases.postgresql import layout as postgresql_layout
from ems.databases.postgresql.layout import ColumnTypes, Layout
from ems.spool.batch import Batch, Column, ColumnType

COPIED_AS: dict[ColumnType, str] = {"int64": "int8", "float64": "float8", "text": "text", "bool": "bool"}
LOCK = "SELECT pg_advisory_xact_lock{}(hashtextextended('ems ' || current_schema || ' ' || %s, 0))"
CANNOT_BE_STORED = (psycopg.DataError, UnicodeEncodeError, OverflowError)


def store(connection: Connection[Any], table: str, experiment_id: str, batch: Batch) -> int:
    """Write a batch inside the open transaction; by how many rows the table grew."""
    columns.check_batch(batch)
    layout = _ready(connection, table, batch)
    types = layout.types
    fitting = tuple(columns.as_stored(table, column, types[column.name]) for column in batch.columns)
    removed = _remove_points(connection, layout, experiment_id, batch.replaces)
    if not len(batch):
        return -removed
    return _insert(connection, layout, experiment_id, Batch(batch.points, batch.rows, fitting)) - removed


def lock(connection: Connection[Any], name: str, *, shared: bool) -> None:
    """Until the transaction ends, or the savepoint before it is rolled back to."""
    connection.execute(LOCK.format("_shared" if shared else ""), (name,))


def _ready(connection: Connection[Any], table: str, batch: Batch) -> Layout:
    """The table with all columns that the batch needs, locked against changes by others.

    The shared lock is released before the other one is asked for: two that held it would wait for each other.
    """
    connection.execute("SAVEPOINT looking")
    lock(connection, table, shared=True)
    layout, change = _compared(connection, table, batch)
    if layout.parts and not change.added and not change.widened:
        return layout
    connection.execute("ROLLBACK TO looking")
    lock(connection, table, shared=False)
    layout, change = _compared(connection, table, batch)
    return postgresql_layout.change(connection, layout, change)


def _compared(connection: Connection[Any], table: str, batch: Batch) -> tuple[Layout, columns.TableChange]:
    layout = postgresql_layout.find(connection, table)
    change = columns.meet(table, layout.types, batch.columns)
    postgresql_layout.check_names(table, change.added)
    postgresql_layout.check_width(table, len(layout.types) + len(change.added))
    return layout, change


def check_columns(connection: Connection[Any], table: str, batch: Batch) -> None:
    """As `Database.check_columns`."""
    layout, change = _compared(connection, table, batch)
    columns.check_fitting(table, layout.types, change, batch)
    postgresql_layout.check_exact(connection, layout, change)
    if any(isinstance(value, str) and "\0" in value for column in batch.columns for value in column.values):
        raise cannot_be_stored(table, "text has NUL")


def cannot_be_stored(table: str, problem: object) -> DatabaseError:
    """The error for a value that PostgreSQL does not take."""
    return DatabaseError(
        f"results table {table!r}: a value cannot be stored: {problem}.",
        "Allowed: text that is valid Unicode without NUL (\\0), integers from -2^63 to 2^63-1.",
    )


def _remove_points(connection: Connection[Any], layout: Layout, experiment_id: str, points: Sequence[int]) -> int:
    """How many rows there were."""
    spans = columns.spans(points)
    firsts, lasts = [first for first, _ in spans], [last for _, last in spans]
    return _remove(connection, layout, experiment_id, "mine.point BETWEEN listed.a AND listed.b", firsts, lasts)


def _remove(connection: Connection[Any], layout: Layout, id: str, where: str, a: list[int], b: list[int]) -> int:
    """Rows by a condition on `mine`, a row, and `listed`, a pair of numbers; how many there were."""
    if not a:
        return 0
    deletion = sql.SQL(
        "DELETE FROM {} AS mine USING unnest(%s::bigint[], %s::bigint[]) AS listed (a, b) "
        f"WHERE mine.experiment_id = %s AND {where}"
    )
    counts = [connection.execute(deletion.format(sql.Identifier(part)), (a, b, id)).rowcount for part in layout.parts]
    return counts[0]


def _insert(connection: Connection[Any], layout: Layout, experiment_id: str, batch: Batch) -> int:
    """As keys are new nearly always, rows are copied at once; where they are not, the old ones go first."""
    connection.execute("SAVEPOINT copying")
    try:
        _copy(connection, layout, experiment_id, batch)
        return len(batch)
    except UniqueViolation:
        connection.execute("ROLLBACK TO copying")
    newest = _newest(batch)
    same = "mine.point = listed.a AND mine.row = listed.b"
    removed = _remove(connection, layout, experiment_id, same, list(newest.points), list(newest.rows))
    _copy(connection, layout, experiment_id, newest)
    return len(newest) - removed


def _newest(batch: Batch) -> Batch:
    """Each key once: with its last row."""
    last = {key: index for index, key in enumerate(zip(batch.points, batch.rows, strict=True))}
    kept = set(last.values())
    chosen = [index in kept for index in range(len(batch))]
    picked = tuple(Column(c.name, c.type, list(compress(c.values, chosen))) for c in batch.columns)
    points, rows = (type(keys)("q", compress(keys, chosen)) for keys in (batch.points, batch.rows))
    return Batch(points, rows, picked)


def _copy(connection: Connection[Any], layout: Layout, experiment_id: str, batch: Batch) -> None:
    for index, (part, types) in enumerate(layout.parts.items()):
        own = [column for column in batch.columns if column.name in types]
        if own or index == 0:
            try:
                _copy_rows(connection, part, types, experiment_id, Batch(batch.points, batch.rows, tuple(own)))
            except CANNOT_BE_STORED as error:
                raise cannot_be_stored(layout.name, error) from error


@lru_cache(maxsize=64)
def _copying(part: str, names: tuple[str, ...]) -> str:
    """Of wide tables, this is thousands of names, for each batch the same."""
    return f"COPY {_quoted(part)} ({', '.join([*columns.KEYS, *map(_quoted, names)])}) FROM STDIN (FORMAT BINARY)"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _copy_rows(connection: Connection[Any], part: str, types: ColumnTypes, experiment_id: str, batch: Batch) -> None:
    statement = _copying(part, tuple(column.name for column in batch.columns))
    values = (column.values for column in batch.columns)
    with connection.cursor().copy(statement) as copy:
        copy.set_types(["text", "int8", "int8", *(COPIED_AS[types[column.name]] for column in batch.columns)])
        for row in zip(repeat(experiment_id), batch.points, batch.rows, *values, strict=False):
            copy.write_row(row)
