"""Reading results tables in PostgreSQL, in short transactions of one snapshot.

A transaction that lasted as long as its reader looks at the rows would keep others from adding a column all that time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import psycopg
from sqlalchemy import ARRAY, BigInteger, Connection, Select, any_, column, literal, quoted_name, select, table, tuple_

from ems.base.errors import DatabaseUnavailable
from ems.databases import Condition, selection
from ems.databases.postgresql import layout as postgresql_layout
from ems.spool.batch import Batch

POINTS = 100_000  # of one query
# Before the server has counted a new table's rows it thinks there are few, and would sort all of them for each chunk.
BY_KEY = "; SET LOCAL enable_sort = off"
POINT, ROW = column("point", BigInteger), column("row", BigInteger)
# The catalogue is read in the snapshot, the function answers for now: a table made anew (by ALTER … TYPE) since then
# has no rows for the snapshot.
IS_AS_IT_WAS = """
    SELECT bool_and(c.relfilenode = pg_relation_filenode(c.oid)) FROM pg_class c
    WHERE relkind = 'r' AND pg_table_is_visible(c.oid) AND relname = ANY(%s)
"""


@dataclass(frozen=True)
class Snapshot:
    """`name`: of the snapshot that another connection exported, and keeps."""

    connection: Connection
    name: str

    def layout(self, name: str) -> postgresql_layout.Layout:
        """How a results table lies in the snapshot; DatabaseError if it is not one of EMS."""
        with self.connection.begin():
            return postgresql_layout.find(self._entered(), name)

    def rows(self, name: str, statement: Select[Any], settings: str = "") -> list[Any]:
        """DatabaseUnavailable if the table `name` was made anew meanwhile."""
        compiled = statement.compile(dialect=self.connection.dialect)
        with self.connection.begin():
            driver = self._entered(settings)
            rows = driver.cursor(binary=True).execute(str(compiled), compiled.params).fetchall()
            names = postgresql_layout.relation_names(name)
            if driver.execute(IS_AS_IT_WAS, (names,)).fetchone() == (True,):
                return rows
        raise DatabaseUnavailable(f"results table {name!r} was made anew while it was read.", "Read it again.")

    def chunks(self, name: str, statement: Select[Any], size: int, settings: str = "") -> Iterator[list[Any]]:
        """`statement` selects point and row first, and is in their order."""
        rows = self.rows(name, statement.limit(size), settings)
        while rows:
            yield rows
            following = statement.where(tuple_(POINT, ROW) > tuple_(*rows[-1][:2])).limit(size)
            rows = self.rows(name, following, settings) if len(rows) == size else []

    def _entered(self, settings: str = "") -> psycopg.Connection[Any]:
        driver = self.connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute(f"SET TRANSACTION SNAPSHOT '{self.name}'{settings}")
        return driver


def read(
    snapshot: Snapshot,
    name: str,
    experiment_id: str,
    wanted: Sequence[str] | None,
    where: Sequence[Condition],
    chunk_rows: int,
) -> Iterator[Batch]:
    """As `Database.results`, in the snapshot; DatabaseUnavailable if the table was made anew meanwhile."""
    types = snapshot.layout(name)
    if not types.parts:
        return
    stored = types.types
    names = selection.wanted(name, stored, wanted)
    statement = selection.rows_statement(name, stored, experiment_id, names, where)
    for rows in snapshot.chunks(name, statement, selection.chunk(chunk_rows, len(names)), BY_KEY):
        yield selection.batch_of(rows, [(name, stored[name]) for name in names])


def rows_of(snapshot: Snapshot, name: str, experiment_id: str, points: Sequence[int]) -> Iterator[Batch]:
    """All columns of these points' rows, in batches of whole points."""
    layout = snapshot.layout(name)
    if not layout.parts:
        return
    stored = layout.types
    statement = selection.rows_statement(name, stored, experiment_id, list(stored), ())
    of_points = statement.where(any_(literal(list(points), ARRAY(BigInteger))) == POINT)
    size = selection.chunk(selection.CELLS, len(stored))
    rows = chain.from_iterable(snapshot.chunks(name, of_points, size))
    for found in selection.whole_points(rows, size):
        yield selection.batch_of(found, stored.items())


def stored_points(snapshot: Snapshot, name: str, experiment_id: str) -> Iterator[int]:
    """The points that have rows, ascending; DatabaseUnavailable if the table was made anew meanwhile."""
    if not snapshot.layout(name).parts:
        return
    mine = column("experiment_id") == experiment_id
    statement = select(POINT).distinct().select_from(table(quoted_name(name, True))).where(mine).order_by(POINT)
    rows = snapshot.rows(name, statement.limit(POINTS), BY_KEY)
    while rows:
        yield from (point for (point,) in rows)
        following = statement.where(rows[-1][0] < POINT).limit(POINTS)
        rows = snapshot.rows(name, following, BY_KEY) if len(rows) == POINTS else []
