"""How a results table lies in PostgreSQL: one table, or, where its rows would not fit a page, a view of several.

A page of 8 kB holds a whole row: some 1,000 doubles, and fewer where some are null. A table that outgrows that is
renamed to `NAME part 1` and goes on in `NAME part 2`, with the same key; the view `NAME` joins them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql

from ems.base.errors import DatabaseError
from ems.databases import columns
from ems.spool.batch import ColumnType

DECLARED: dict[ColumnType, sql.SQL] = {
    "int64": sql.SQL("bigint"),
    "float64": sql.SQL("double precision"),
    "text": sql.SQL('text COLLATE "C"'),
    "bool": sql.SQL("boolean"),
}
TYPE_OF: dict[str, ColumnType] = {
    "bigint": "int64",
    "double precision": "float64",
    "text": "text",
    "boolean": "bool",
}
BYTES: dict[ColumnType, int] = {"int64": 8, "float64": 8, "text": 24, "bool": 8}  # of a page, with padding
PAGE_BYTES = 7_800  # left for columns by the row's header, its map of nulls and the key
MOST_COLUMNS = 1_600 - len(columns.KEYS)
MOST_PARTS = 6  # of MOST_COLUMNS columns of text
NAME_BYTES = 63
SYSTEM = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
KEY = sql.SQL("experiment_id, point, row")
CATALOG = """
    SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum),
        array_agg(format_type(a.atttypid, NULL) ORDER BY a.attnum)
    FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE pg_table_is_visible(c.oid) AND c.relname = ANY(%s) GROUP BY c.oid ORDER BY c.relname
"""

ColumnTypes = dict[str, ColumnType]


@dataclass(frozen=True)
class Layout:
    """The tables that hold the rows, each with the types of its columns after the keys; none before the first."""

    name: str
    parts: dict[str, ColumnTypes]

    @property
    def types(self) -> ColumnTypes:
        """The columns after the keys, those of all parts."""
        return {name: type for part in self.parts.values() for name, type in part.items()}

    @property
    def is_view(self) -> bool:
        """Whether the rows lie in several tables, which a view joins."""
        return len(self.parts) > 1


def part_name(name: str, number: int) -> str:
    """The name of the table of a part; parts are numbered from 1."""
    return f"{name} part {number}"


def relation_names(name: str) -> list[str]:
    """Every name that a results table may take up: its own, then those of its parts."""
    return [name, *(part_name(name, number) for number in range(1, MOST_PARTS + 1))]


def find(connection: Connection[Any], name: str) -> Layout:
    """DatabaseError if the table is not one of EMS."""
    found = connection.execute(CATALOG, (relation_names(name),))
    types = {part: _types(name, dict(zip(names, described, strict=True))) for part, names, described in found}
    parts = {part: types[part] for part in types if part != name}
    return Layout(name, parts or types)


def _types(name: str, described: dict[str, str]) -> ColumnTypes:
    columns.check_own(name, columns.KEYS, described, TYPE_OF)
    return {column: TYPE_OF[type] for column, type in described.items() if column not in columns.KEYS}


def check_names(table: str, names: Iterable[str]) -> None:
    """DatabaseError for a name that PostgreSQL would cut off, or keeps for itself."""
    for name in names:
        if len(name.encode("utf-8", "surrogatepass")) > NAME_BYTES:
            problem, allowed = "has more than 63 bytes in UTF-8", "PostgreSQL would cut it off"
        elif name in SYSTEM:
            problem, allowed = "is a name that PostgreSQL keeps for itself", "So are " + ", ".join(sorted(SYSTEM))
        else:
            continue
        raise DatabaseError(
            f"results table {table!r}: column {name!r} {problem}.", f"{allowed}: rename it in the job's output."
        )


def check_width(table: str, width: int) -> None:
    """DatabaseError for more columns than PostgreSQL allows; `width`: of the table without its keys."""
    if width > MOST_COLUMNS:
        raise DatabaseError(
            f"results table {table!r} would have {width} columns; PostgreSQL allows {MOST_COLUMNS}.",
            "Write long vectors as rows (one per element), or use another results table.",
        )


def check_exact(connection: Connection[Any], layout: Layout, change: columns.TableChange) -> None:
    """DatabaseError if a stored integer would not stay exact in a column that becomes double."""
    for part, types in layout.parts.items():
        for name in change.widened:
            if name in types:
                _check_exact(connection, part, name)


def change(connection: Connection[Any], layout: Layout, change: columns.TableChange) -> Layout:
    """Make, widen or extend the table; nobody else may be at it."""
    if layout.is_view:
        connection.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(layout.name)))
    for part, types in layout.parts.items():
        _widen(connection, part, [name for name in change.widened if name in types])
    after = _with(layout, change.added)
    if after.is_view and not layout.is_view and layout.parts:
        renamed = sql.SQL("ALTER TABLE {} RENAME TO {}")
        connection.execute(renamed.format(sql.Identifier(layout.name), sql.Identifier(part_name(layout.name, 1))))
    for part, types in after.parts.items():
        _extend(connection, part, types, _old_types(layout, part))
    if after.is_view:
        connection.execute(_view(after))
    widened: ColumnTypes = dict.fromkeys(change.widened, "float64")
    return Layout(after.name, {part: {n: widened.get(n, t) for n, t in ts.items()} for part, ts in after.parts.items()})


def _old_types(layout: Layout, part: str) -> ColumnTypes | None:
    """None for a part that is not there yet."""
    if part == part_name(layout.name, 1) and not layout.is_view:
        part = layout.name
    return layout.parts.get(part)


def _with(layout: Layout, added: Mapping[str, ColumnType]) -> Layout:
    """The columns in their places: those that are there stay, new ones go to the first part with room."""
    parts = [dict(types) for types in layout.parts.values()] or [{}]
    for name, type in added.items():
        room = next((part for part in parts if _bytes(part) + BYTES[type] <= PAGE_BYTES), None)
        if room is None:
            parts.append(room := {})
        room[name] = type
    names = [layout.name] if len(parts) == 1 else relation_names(layout.name)[1 : len(parts) + 1]
    return Layout(layout.name, dict(zip(names, parts, strict=True)))


def _bytes(types: ColumnTypes) -> int:
    return sum(BYTES[type] for type in types.values())


def _definition(name: str, type: ColumnType) -> sql.Composed:
    return sql.Identifier(name) + sql.SQL(" ") + DECLARED[type]


def _extend(connection: Connection[Any], part: str, types: ColumnTypes, before: ColumnTypes | None) -> None:
    table = sql.Identifier(part)
    fresh = [_definition(name, type) for name, type in types.items() if name not in (before or {})]
    if before is None:
        keys = 'experiment_id text COLLATE "C" NOT NULL, point bigint NOT NULL, row bigint NOT NULL'
        body = sql.SQL(", ").join([sql.SQL(keys), *fresh, sql.SQL("PRIMARY KEY ({})").format(KEY)])
        connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table, body))
    elif fresh:
        adding = sql.SQL(", ").join(sql.SQL("ADD COLUMN {}").format(column) for column in fresh)
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(table, adding))


def _widen(connection: Connection[Any], part: str, names: list[str]) -> None:
    for name in names:
        _check_exact(connection, part, name)
    if names:
        to_double = sql.SQL("ALTER COLUMN {} TYPE double precision")
        changes = sql.SQL(", ").join(to_double.format(sql.Identifier(name)) for name in names)
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(sql.Identifier(part), changes))


def _check_exact(connection: Connection[Any], part: str, name: str) -> None:
    inexact = sql.SQL(
        """SELECT {column} FROM {table} WHERE CASE
            WHEN {column} BETWEEN -9007199254740992 AND 9007199254740992 THEN false
            WHEN {column}::double precision >= 9223372036854775808 THEN true  -- 2^63 is not a bigint
            ELSE {column}::double precision::bigint <> {column} END LIMIT 1"""
    ).format(column=sql.Identifier(name), table=sql.Identifier(part))
    row = connection.execute(inexact).fetchone()
    if row is not None:
        raise columns.inexact(part.partition(" ")[0], name, row[0])


def _view(layout: Layout) -> sql.Composed:
    names = [sql.Identifier(name) for name in layout.types]
    first, *rest = (sql.Identifier(part) for part in layout.parts)
    joined = sql.SQL("").join(sql.SQL(" LEFT JOIN {} USING ({})").format(part, KEY) for part in rest)
    selected = sql.SQL(", ").join([KEY, *names])
    view = sql.SQL("CREATE VIEW {} AS SELECT {} FROM {}{}")
    return view.format(sql.Identifier(layout.name), selected, first, joined)
