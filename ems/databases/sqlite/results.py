"""Results tables in SQLite: made, widened, filled and read through the driver itself, which is the fast path."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import itemgetter

from sqlalchemy import and_, true
from sqlalchemy.dialects.sqlite import dialect

from ems.base.errors import DatabaseError
from ems.databases import Condition, columns, selection
from ems.spool.batch import Batch, ColumnType

DECLARED: dict[ColumnType, str] = {"int64": "INTEGER", "float64": "", "text": "TEXT", "bool": "BOOLEAN"}
TYPE_OF: dict[str, ColumnType] = {declared: type for type, declared in DECLARED.items()}
NOTE = {"": " /* DOUBLE, untyped to keep -0.0 */"}
KEY_TYPES: dict[str, ColumnType] = {"experiment_id": "text", "point": "int64", "row": "int64"}
KEY = "experiment_id = ? AND point = ? AND row = ?"
MANY_ROWS = 20  # of a point: from here on, looking for the next point is quicker than reading all rows
DIALECT = dialect()
FETCHED = 400  # rows at once: more tuples alive wake Python's collector of cycles, which takes as long as reading


def store(connection: sqlite3.Connection, table: str, experiment_id: str, batch: Batch) -> int:
    """Write a batch inside the open transaction; by how many rows the table grew."""
    columns.check_batch(batch)
    stored = _stored_types(connection, table)
    change = columns.meet(table, stored or {}, batch.columns)
    _check_width(connection, table, len(stored or {}) + len(change.added))
    if stored is None:
        connection.execute(_create_sql(table, change.added))
    else:
        _change(connection, table, stored, change)
    types = (stored or {}) | change.added | dict.fromkeys(change.widened, "float64")
    removed = _remove_points(connection, table, experiment_id, batch.replaces)
    return _insert(connection, table, experiment_id, _fitting(table, types, batch)) - removed


def check_columns(connection: sqlite3.Connection, table: str, batch: Batch) -> None:
    """As `Database.check_columns`."""
    stored = _stored_types(connection, table) or {}
    change = columns.meet(table, stored, batch.columns)
    _check_width(connection, table, len(stored) + len(change.added))
    columns.check_fitting(table, stored, change, batch)
    for name in change.widened:
        _check_exact(connection, table, name)


def _fitting(table: str, types: dict[str, ColumnType], batch: Batch) -> Batch:
    fitting = tuple(columns.as_stored(table, column, types[column.name]) for column in batch.columns)
    return Batch(batch.points, batch.rows, fitting)


def _stored_types(connection: sqlite3.Connection, table: str) -> dict[str, ColumnType] | None:
    """Types of the columns after the keys; None if there is no such table."""
    rows = connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()
    if not rows:
        return None
    columns.check_own(table, columns.KEYS, dict(rows), TYPE_OF)
    return {name: TYPE_OF[type] for name, type in rows[3:]}


def _check_width(connection: sqlite3.Connection, table: str, width: int) -> None:
    limits = (sqlite3.SQLITE_LIMIT_COLUMN, sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    most = min(connection.getlimit(limit) for limit in limits) - len(KEY_TYPES)
    if width > most:
        raise DatabaseError(
            f"results table {table!r} would have {width} columns; this SQLite allows {most}.",
            "Write long vectors as rows (one per element), or use another database.",
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _definition(name: str, type: ColumnType) -> str:
    declared = DECLARED[type]
    return f"{_quoted(name)} {declared}{NOTE.get(declared, '')}"


def _create_sql(table: str, types: dict[str, ColumnType]) -> str:
    keys = [f"{name} {DECLARED[type]} NOT NULL" for name, type in KEY_TYPES.items()]
    parts = [*keys, *(_definition(*item) for item in types.items()), f"PRIMARY KEY ({', '.join(columns.KEYS)})"]
    return f"CREATE TABLE {_quoted(table)} ({', '.join(parts)}) WITHOUT ROWID"


def _change(
    connection: sqlite3.Connection, table: str, stored: dict[str, ColumnType], change: columns.TableChange
) -> None:
    if change.widened:
        _rebuild(connection, table, stored, change)
        return
    for name, type in change.added.items():
        connection.execute(f"ALTER TABLE {_quoted(table)} ADD COLUMN {_definition(name, type)}")


def _rebuild(
    connection: sqlite3.Connection, table: str, stored: dict[str, ColumnType], change: columns.TableChange
) -> None:
    """Copy the table into one with the wider types: SQLite cannot change a column's type in place."""
    for name in change.widened:
        _check_exact(connection, table, name)
    wider = stored | dict.fromkeys(change.widened, "float64") | change.added
    aside = f"{table} (being widened)"
    connection.execute(_create_sql(aside, wider))
    casts = [f"CAST({_quoted(name)} AS REAL)" if name in change.widened else _quoted(name) for name in stored]
    into = ", ".join([*columns.KEYS, *map(_quoted, stored)])
    connection.execute(
        f"INSERT INTO {_quoted(aside)} ({into}) SELECT {', '.join([*columns.KEYS, *casts])} FROM {_quoted(table)}"
    )
    connection.execute(f"DROP TABLE {_quoted(table)}")
    connection.execute(f"ALTER TABLE {_quoted(aside)} RENAME TO {_quoted(table)}")


def _check_exact(connection: sqlite3.Connection, table: str, name: str) -> None:
    column = _quoted(name)
    # SQLite compares integers and doubles exactly
    inexact = f"SELECT {column} FROM {_quoted(table)} WHERE {column} <> CAST({column} AS REAL) LIMIT 1"
    row = connection.execute(inexact).fetchone()
    if row is not None:
        raise columns.inexact(table, name, row[0])


def _remove_points(connection: sqlite3.Connection, table: str, experiment_id: str, points: Sequence[int]) -> int:
    sql = f"DELETE FROM {_quoted(table)} WHERE experiment_id = ? AND point BETWEEN ? AND ?"
    ranges = ((experiment_id, first, last) for first, last in columns.spans(points))
    return connection.executemany(sql, ranges).rowcount


def _insert(connection: sqlite3.Connection, table: str, experiment_id: str, batch: Batch) -> int:
    """A plain INSERT, as keys are new nearly always; where they are not, the old rows go first."""
    before = connection.total_changes
    try:
        _insert_rows(connection, "INSERT", table, experiment_id, batch)
        return len(batch)
    except sqlite3.IntegrityError:
        partly = connection.total_changes - before
    keys = set(zip(batch.points, batch.rows, strict=True))
    removing = f"DELETE FROM {_quoted(table)} WHERE {KEY}"
    removed = connection.executemany(removing, ((experiment_id, *key) for key in keys)).rowcount
    _insert_rows(connection, "INSERT OR REPLACE", table, experiment_id, batch)
    return len(keys) - (removed - partly)


def _insert_rows(connection: sqlite3.Connection, verb: str, table: str, experiment_id: str, batch: Batch) -> None:
    names = ", ".join([*columns.KEYS, *(_quoted(column.name) for column in batch.columns)])
    marks = ", ".join("?" * (len(batch.columns) + len(columns.KEYS)))
    values = (column.values for column in batch.columns)
    rows = zip(repeat(experiment_id), batch.points, batch.rows, *values, strict=False)
    try:
        connection.executemany(f"{verb} INTO {_quoted(table)} ({names}) VALUES ({marks})", rows)
    except (UnicodeEncodeError, OverflowError) as error:
        raise DatabaseError(
            f"results table {table!r}: a value cannot be stored: {error}.",
            "Allowed: text that is valid Unicode, integers from -2^63 to 2^63-1.",
        ) from error


def read(
    connection: sqlite3.Connection,
    table: str,
    experiment_id: str,
    wanted: Sequence[str] | None,
    where: Sequence[Condition],
    chunk_rows: int,
) -> Iterator[Batch]:
    """As `Database.results`."""
    stored = _stored_types(connection, table)
    if stored is None:
        return
    names = selection.wanted(table, stored, wanted)
    conditions = and_(true(), *selection.clauses(table, stored, where)).compile(dialect=DIALECT)
    values = [conditions.params[name] for name in conditions.positiontup or ()]
    selected = ", ".join(["point", "row", *map(_quoted, names)])
    mine = f"FROM {_quoted(table)} WHERE experiment_id = ? AND {conditions} ORDER BY point, row"
    cursor = connection.execute(f"SELECT {selected} {mine}", [experiment_id, *values])
    while rows := cursor.fetchmany(min(selection.chunk(chunk_rows, len(names)), FETCHED)):
        yield selection.batch_of(rows, [(name, stored[name]) for name in names])


def read_points(
    connection: sqlite3.Connection, table: str, experiment_id: str, wanted: Sequence[int]
) -> Iterator[Batch]:
    """All columns of these points' rows, in batches of whole points of some CELLS."""
    stored = _stored_types(connection, table)
    if stored is None:
        return
    selected = ", ".join(["point", "row", *map(_quoted, stored)])
    where = "WHERE experiment_id = ? AND point IN (SELECT value FROM json_each(?)) ORDER BY point, row"
    points = json.dumps(list(wanted))
    cursor = connection.execute(f"SELECT {selected} FROM {_quoted(table)} {where}", (experiment_id, points))
    for rows in selection.whole_points(cursor, selection.CELLS // (len(stored) + 1)):
        yield selection.batch_of(rows, list(stored.items()))


def stored_points(connection: sqlite3.Connection, table: str, experiment_id: str, rows: int) -> Iterator[int]:
    """The points that have rows, ascending; `rows`: how many there are in all."""
    if _stored_types(connection, table) is None:
        return iter(())
    mine = f"FROM {_quoted(table)} WHERE experiment_id = :id"
    (last,) = connection.execute(f"SELECT max(point) {mine}", {"id": experiment_id}).fetchone()
    sql = f"SELECT DISTINCT point {mine} ORDER BY point"
    if last is not None and rows > MANY_ROWS * (last + 1):
        sql = _skipping(mine)
    return map(itemgetter(0), connection.execute(sql, {"id": experiment_id}))


def _skipping(mine: str) -> str:
    """SQLite reads every row for DISTINCT; a look-up per point reads as many as there are points."""
    following = f"SELECT (SELECT min(point) {mine} AND point > found) FROM each WHERE found IS NOT NULL"
    return (
        f"WITH RECURSIVE each(found) AS (SELECT min(point) {mine} UNION ALL {following}) "
        "SELECT found FROM each WHERE found IS NOT NULL"
    )
