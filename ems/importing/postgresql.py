"""A table or view of PostgreSQL: `postgresql://[user@]host/database`, as the lab's database is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ems.base.errors import DatabaseError, UserError
from ems.databases.copying import speaking_of
from ems.databases.postgresql import secret_versions
from ems.databases.postgresql.backend import DEFAULTS, settings_of
from ems.databases.postgresql.errors import explained
from ems.importing.source import Reading, refuse_unknown
from ems.importing.tables import TableSource, chosen
from ems.node.job.columns import KnownTypes
from ems.spool.batch import ColumnType

THE_SOURCE = "The source"
PAGE_CELLS = 100_000
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
SETTINGS = "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true)"
TABLES = """
    SELECT CASE WHEN pg_table_is_visible(c.oid) THEN c.relname ELSE n.nspname || '.' || c.relname END,
        n.nspname::text, c.relname::text, c.oid, greatest(c.reltuples, 0)::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY 1
"""
COLUMNS = """
    SELECT a.attname::text, CASE t.typtype WHEN 'd' THEN b.typname WHEN 'e' THEN 'enum' ELSE t.typname END::text,
        format_type(a.atttypid, a.atttypmod), array_position(i.indkey::int2[], a.attnum)
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
MOMENT = (
    "CASE WHEN isfinite({0}) AND {0} >= '0001-01-01' "
    "THEN to_char({0}, 'YYYY-MM-DD HH24:MI:SS.US'){1} ELSE {0}::text END"
)
READ_AS = {
    **dict.fromkeys(("int2", "int4", "int8", "numeric", "bool", "text", "varchar", "bpchar"), "{0}"),
    **dict.fromkeys(("float4", "float8"), "{0}::float8"),
    **dict.fromkeys(("name", "uuid", "enum", "citext", "date", "timetz"), "{0}::text"),
    "time": "to_char({0}::interval, 'HH24:MI:SS.US')",
    "timestamp": MOMENT.format("{0}", ""),
    "timestamptz": MOMENT.format("{0}", " || '+00:00'"),
}
DEFAULT: dict[str, ColumnType] = {
    **dict.fromkeys(("int2", "int4", "int8"), "int64"),
    **dict.fromkeys(("float4", "float8", "numeric"), "float64"),
    "bool": "bool",
}


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str
    shown: str  # its type as SQL writes it
    place_in_key: int | None


def opened(url: str, reading: Reading) -> PostgresqlSource:
    """The table as a source; UserError if the URL or the table is none, DatabaseError if the server refuses."""
    with speaking_of(THE_SOURCE):
        plain, password_from = secret_versions.taken_out(url)
        settings: dict[str, Any] = {**DEFAULTS, **settings_of(plain), "prepare_threshold": None}
        if password_from:
            settings["password"] = secret_versions.password(password_from)
    return PostgresqlSource(plain, settings, reading)


class PostgresqlSource(TableSource):
    """Read in one snapshot, in the order of the primary key if there is one."""

    kind = "postgresql"

    def __init__(self, url: str, settings: Mapping[str, Any], reading: Reading) -> None:
        super().__init__()
        self.name = url
        with self._mapped(), ExitStack() as opening:
            self._connection: psycopg.Connection[Any] = psycopg.connect(**settings)
            opening.callback(self._connection.close)
            for statement in (SNAPSHOT, SETTINGS):
                self._connection.execute(statement)
            self._identifier, self.table, oid, self.size = self._chosen(reading.table)
            found = self._connection.execute(COLUMNS, (oid,)).fetchall()
            self._columns = [_Column(name, kind, shown, place) for name, kind, shown, place in found]
            opening.pop_all()
        key = [column for column in self._columns if column.place_in_key is not None]
        self._key = [column.name for column in sorted(key, key=lambda column: column.place_in_key or 0)]
        self.keeps_order = bool(self._key)
        self._refuse_types(reading.types)

    def _chosen(self, wanted: str) -> tuple[sql.Identifier, str, int, int]:
        """Its identifier, name and number, and about how many rows it has."""
        found = self._connection.execute(TABLES).fetchall()
        tables = {f"{schema}.{name}": (schema, name, oid, rows) for _, schema, name, oid, rows in found}
        tables |= {shown: (schema, name, oid, rows) for shown, schema, name, oid, rows in found}
        names = [shown for shown, *_ in found]
        schema, name, oid, rows = tables[wanted if wanted in tables else chosen(wanted, names, self.name)]
        return sql.Identifier(schema, name), f"{schema}.{name}", oid, rows

    def _refuse_types(self, declared: Mapping[str, ColumnType]) -> None:
        """UserError for columns whose values have no exact form, unless they are said to be text."""
        refuse_unknown(declared, self.names(), "--type")
        for column in self._columns:
            if column.kind not in READ_AS and declared.get(column.name) != "text":
                what = f"{self.name}, table {self.table}: column {column.name!r} is of type {column.shown}"
                raise UserError(
                    f"{what}, which has no exact form here.", f"Import it as text: --type '{column.name}=text'"
                )

    def names(self) -> list[str]:
        return [column.name for column in self._columns]

    def default_types(self) -> Mapping[str, ColumnType]:
        return {column.name: DEFAULT.get(column.kind, "text") for column in self._columns}

    def pages(self, types: KnownTypes) -> Iterator[Sequence[tuple[Any, ...]]]:
        selected = sql.SQL(", ").join(_expression(column, types.declared.get(column.name)) for column in self._columns)
        query = sql.SQL("SELECT {} FROM {}").format(selected, self._identifier)
        if self._key:
            query += sql.SQL(" ORDER BY ") + sql.SQL(", ").join(map(sql.Identifier, self._key))
        with self._mapped(), self._connection.cursor("ems_import", binary=True) as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(max(1, PAGE_CELLS // len(self._columns))):
                yield rows

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            with speaking_of(THE_SOURCE):
                raise explained(error, self.name) from error
        except UnicodeDecodeError as error:
            raise DatabaseError(f"{self.name}, table {self.table}: a text is not UTF-8: {error}.") from error

    def close(self) -> None:
        self._connection.close()


def _expression(column: _Column, declared: ColumnType | None) -> sql.Composed:
    """What gives a column's values exactly; of one that is to be text, as PostgreSQL writes them."""
    is_text = declared == "text" and (column.kind == "numeric" or column.kind not in READ_AS)
    return sql.SQL("{0}::text" if is_text else READ_AS[column.kind]).format(sql.Identifier(column.name))
