"""Filling and reading results tables in BigQuery: rows come by load jobs, and count once their batch does."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import compress
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
from google.cloud.bigquery import (
    ArrayQueryParameter,
    ScalarQueryParameter,
    ScalarQueryParameterType,
    SchemaField,
    StructQueryParameter,
    StructQueryParameterType,
    Table,
    TimePartitioning,
    TimePartitioningType,
)

from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.databases import Claim, Condition, columns, selection
from ems.databases.bigquery import columns as bigquery_columns
from ems.databases.bigquery.columns import BATCH, KEY_FIELDS, TYPE_OF, Layout, Stored
from ems.databases.bigquery.dialect import Dialect, Statement, compiled
from ems.databases.bigquery.service import LABELS, Contended, Service
from ems.spool.batch import Batch, Column, ColumnType

ARROW: dict[ColumnType, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "text": pa.string(),
    "bool": pa.bool_(),
}
DIALECT = Dialect(paramstyle="named")
GROWN = "grown"  # the script's variable: by how many rows the table grew
LOADED = "loaded_batch"  # the table of the batches that count
IS_LOADED = f"{BATCH} IN (SELECT number FROM {LOADED} WHERE experiment_id = @id)"
COUNTS = f"experiment_id = @id AND {IS_LOADED}"
CELLS = 4_000_000  # of a batch that is copied: each is a load job
NUMBER_BITS = 40  # of a batch's number that are random; the others say which run it is of

SPAN = StructQueryParameterType(  # type: ignore[no-untyped-call]
    ScalarQueryParameterType("INT64", name="first"),  # type: ignore[no-untyped-call]
    ScalarQueryParameterType("INT64", name="last"),  # type: ignore[no-untyped-call]
)


# Columns


def find(service: Service, table: str) -> Layout | None:
    """The columns of a results table; None if it is not there yet. DatabaseError if it is not one of EMS."""
    found = service.describe(table)
    return None if found is None else bigquery_columns.layout_of(found)


def make_ready(service: Service, table: str, batch: Batch) -> Layout:
    """The table with all columns that the batch needs."""
    columns.check_batch(batch)
    try:
        return service.patiently(lambda: _ready(service, table, batch))
    except Contended as error:
        message = f"Others keep changing results table {table!r}."
        raise DatabaseUnavailable(message, "Nothing was stored: try again.") from error


def _ready(service: Service, table: str, batch: Batch) -> Layout:
    """Contended if others change the columns at the same time."""
    found = service.describe(table)
    layout = {} if found is None else bigquery_columns.layout_of(found)
    change = columns.meet(table, {name: stored.type for name, stored in layout.items()}, batch.columns)
    bigquery_columns.check_width(table, len(layout) + len(change.added))
    if found is not None and not change.added and not change.widened:
        return layout
    _change(service, table, found, layout, change)
    return _ready(service, table, batch)


def check_columns(service: Service, table: str, batch: Batch) -> None:
    """As `Database.check_columns`."""
    layout = find(service, table) or {}
    types = {name: stored.type for name, stored in layout.items()}
    change = columns.meet(table, types, batch.columns)
    bigquery_columns.check_width(table, len(layout) + len(change.added))
    columns.check_fitting(table, types, change, batch)
    for name in change.widened:
        _check_exact(service, table, name, layout[name].field)


def _change(service: Service, name: str, found: Table | None, layout: Layout, change: columns.TableChange) -> None:
    """One step towards the columns that are needed; others may take steps at the same time."""
    fields = bigquery_columns.new_fields(layout, change.added)
    if found is None:
        service.make_table(_new_table(service, name, fields))
        return
    for column in change.widened:
        _widen(service, name, column, layout[column].field)
    if fields:
        found.schema = [*found.schema, *fields]
        service.change_columns(found)


def _new_table(service: Service, name: str, fields: Sequence[SchemaField]) -> Table:
    """Clustered, so that reading an experiment reads little else; by month, so that old months cost less to keep."""
    table = Table(service.table(name), schema=[*KEY_FIELDS, *fields])
    table.clustering_fields = list(columns.KEYS)
    table.time_partitioning = TimePartitioning(type_=TimePartitioningType.MONTH)
    table.labels = LABELS
    return table


def _widen(service: Service, table: str, name: str, field: str) -> None:
    _check_exact(service, table, name, field)
    service.query(f"ALTER TABLE {quoted(table)} ALTER COLUMN {quoted(field)} SET DATA TYPE FLOAT64")


def _check_exact(service: Service, table: str, name: str, field: str) -> None:
    """DatabaseError if a stored integer is not an exact double."""
    as_double = f"SAFE_CAST(CAST({quoted(field)} AS FLOAT64) AS INT64)"
    inexact = f"{quoted(field)} IS NOT NULL AND IFNULL({as_double} != {quoted(field)}, TRUE)"
    for (value,) in service.query(f"SELECT {quoted(field)} FROM {quoted(table)} WHERE {inexact} LIMIT 1"):
        raise columns.inexact(table, name, value)


def quoted(name: str) -> str:
    """A name of a table or field, in backquotes."""
    return f"`{name}`"


# Rows


def load(service: Service, claim: Claim, layout: Layout, batch: Batch) -> int:
    """Load the batch's rows, which count once `commitment` was run; its number."""
    table = claim.results_table
    fields, arrays = arrow_of(table, claim.experiment_id, layout, batch)
    repetitive = [field.name for field in fields if field.field_type == "STRING" or field.name in {"row", BATCH}]

    def file(number: int) -> bytes:
        written = BytesIO()
        numbers = pa.repeat(pa.scalar(number, pa.int64()), len(batch))
        schema = pa.schema([pa.field(f.name, ARROW[TYPE_OF[f.field_type]], f.mode != "REQUIRED") for f in fields])
        rows = pa.Table.from_arrays([*arrays[:3], numbers, *arrays[3:]], schema=schema)
        pq.write_table(rows, written, use_dictionary=repetitive)
        return written.getvalue()

    return service.load(table, fields, lambda: new_number(claim.attempt), file)


def new_number(attempt: int) -> int:
    """By which it can be told of which run a batch is."""
    return attempt << NUMBER_BITS | random.getrandbits(NUMBER_BITS)


def arrow_of(table: str, experiment_id: str, layout: Layout, batch: Batch) -> tuple[list[SchemaField], list[pa.Array]]:
    """The fields of all columns, and what is in all but that of the batch's number."""
    fitting = [columns.as_stored(table, column, layout[column.name].type) for column in batch.columns]
    fields = [*KEY_FIELDS, *(layout[column.name].described(column.name) for column in fitting)]
    try:
        arrays = [pa.array(numpy.asarray(keys), pa.int64()) for keys in (batch.points, batch.rows)]
        arrays += [_arrow(column) for column in fitting]
    except (UnicodeEncodeError, OverflowError, pa.ArrowException) as error:
        raise DatabaseError(
            f"results table {table!r}: a value cannot be stored: {error}.",
            "Allowed: text that is valid Unicode, integers from -2^63 to 2^63-1.",
        ) from error
    return fields, [pa.repeat(experiment_id, len(batch)), *arrays]


def _arrow(column: Column) -> pa.Array:
    values = numpy.asarray(column.values) if isinstance(column.values, array) else column.values
    return pa.array(values, ARROW[column.type], from_pandas=False)


def newest(batch: Batch) -> Batch:
    """Each key once: with its last row."""
    order = numpy.lexsort((batch.rows, batch.points))
    same = [numpy.diff(numpy.asarray(keys)[order]) == 0 for keys in (batch.points, batch.rows)]
    superseded = order[:-1][same[0] & same[1]]
    if not len(superseded):
        return batch
    chosen = numpy.ones(len(batch), bool)
    chosen[superseded] = False
    picked = tuple(Column(c.name, c.type, list(compress(c.values, chosen))) for c in batch.columns)
    points, rows = (type(keys)("q", compress(keys, chosen)) for keys in (batch.points, batch.rows))
    return Batch(points, rows, picked)


def removal(table: str, experiment_id: str, points: Sequence[int]) -> Statement:
    """Deletes the rows of these points, if there are any: looking is quicker than deleting nothing."""
    spans = columns.spans(points)
    values = [
        StructQueryParameter(None, ScalarQueryParameter("first", "INT64", a), ScalarQueryParameter("last", "INT64", b))
        for a, b in spans
    ]
    within = "EXISTS (SELECT 1 FROM UNNEST(@spans) AS span WHERE point BETWEEN span.first AND span.last)"
    found = f"FROM {quoted(table)} WHERE {COUNTS} AND point BETWEEN @first AND @last AND {within}"
    sql = f"IF EXISTS (SELECT 1 {found}) THEN DELETE {found}; SET {GROWN} = {GROWN} - @@row_count; END IF"
    return sql, [
        ScalarQueryParameter("id", "STRING", experiment_id),
        ScalarQueryParameter("first", "INT64", spans[0][0]),
        ScalarQueryParameter("last", "INT64", spans[-1][1]),
        ArrayQueryParameter("spans", SPAN, values),
    ]


def key_removal(table: str, experiment_id: str, number: int, points: Sequence[int]) -> Statement:
    """Deletes the rows whose keys the loaded rows have."""
    same = (
        f"SELECT 1 FROM {quoted(table)} AS new WHERE new.experiment_id = @id AND new.{BATCH} = @number "
        "AND new.point = old.point AND new.`row` = old.`row`"
    )
    sql = (
        f"DELETE FROM {quoted(table)} AS old "
        f"WHERE {COUNTS} AND old.point BETWEEN @first AND @last AND EXISTS ({same}); "
        f"SET {GROWN} = {GROWN} - @@row_count"
    )
    first, last = (ScalarQueryParameter(name, "INT64", of(points)) for name, of in (("first", min), ("last", max)))
    return sql, [*_of_batch(experiment_id, number), first, last]


def unless_done(experiment_id: str, number: int) -> Statement:
    """Ends the script if the batch counts already: its answer was lost, and it is run again."""
    known = f"SELECT 1 FROM {LOADED} WHERE experiment_id = @id AND number = @number"
    sql = f"IF EXISTS ({known}) THEN ROLLBACK TRANSACTION; SELECT TRUE; RETURN; END IF"
    return sql, _of_batch(experiment_id, number)


def commitment(experiment_id: str, number: int, rows: int) -> Statement:
    """Makes the rows of the batch count."""
    sql = f"INSERT INTO {LOADED} (experiment_id, number) VALUES (@id, @number); SET {GROWN} = {GROWN} + @rows"
    return sql, [*_of_batch(experiment_id, number), ScalarQueryParameter("rows", "INT64", rows)]


def cleaning(table: str, claim: Claim) -> Statement:
    """Deletes what this run and those before it have loaded and that never came to count."""
    found = f"FROM {quoted(table)} WHERE experiment_id = @id AND {BATCH} < @next AND NOT {IS_LOADED}"
    return f"IF EXISTS (SELECT 1 {found}) THEN DELETE {found}; END IF", [
        ScalarQueryParameter("id", "STRING", claim.experiment_id),
        ScalarQueryParameter("next", "INT64", (claim.attempt + 1) << NUMBER_BITS),
    ]


def _of_batch(experiment_id: str, number: int) -> list[Any]:
    return [ScalarQueryParameter("id", "STRING", experiment_id), ScalarQueryParameter("number", "INT64", number)]


# Reading


def read(
    service: Service,
    table: str,
    experiment_id: str,
    wanted: Sequence[str] | None,
    where: Sequence[Condition],
    chunk_rows: int,
) -> Iterator[Batch]:
    """As `Database.results`: the rows that count."""
    layout = find(service, table)
    if layout is None:
        return
    types = {name: stored.type for name, stored in layout.items()}
    names = selection.wanted(table, types, wanted)
    selection.clauses(table, types, where)  # complains in the names that the job gave
    sql, parameters = _select(table, layout, experiment_id, names, where)
    size = selection.chunk(chunk_rows, len(names))
    for page in service.query(sql, parameters, size).pages:
        rows = [row.values() for row in page]
        if rows:
            yield selection.batch_of(rows, [(name, types[name]) for name in names])


def rows_of(service: Service, table: str, experiment_id: str, points: Sequence[int]) -> Iterator[Batch]:
    """All columns of these points' rows, in batches of whole points."""
    layout = find(service, table)
    if layout is None:
        return
    names = list(layout)
    sql, parameters = _select(table, layout, experiment_id, names, (), " AND point IN UNNEST(@points)")
    size = selection.chunk(CELLS, len(names), CELLS)
    rows = service.query(sql, [*parameters, ArrayQueryParameter("points", "INT64", list(points))], size)
    for found in selection.whole_points((row.values() for row in rows), size):
        yield selection.batch_of(found, [(name, layout[name].type) for name in names])


def _select(
    table: str,
    layout: Layout,
    experiment_id: str,
    names: Sequence[str],
    where: Sequence[Condition],
    also: str = "",
) -> Statement:
    by_field = {stored.field: stored.type for stored in layout.values()}
    always = {key: Stored(key, "int64") for key in selection.ALWAYS}
    fields = [layout[name].field for name in names]
    conditions = [Condition((layout | always)[c.column].field, c.operator, c.value) for c in where]
    sql, parameters = compiled(selection.rows_statement(table, by_field, experiment_id, fields, conditions), DIALECT)
    own_id = ScalarQueryParameter("id", "STRING", experiment_id)
    return sql.replace(" ORDER BY ", f" AND {IS_LOADED}{also} ORDER BY ", 1), [*parameters, own_id]


def points_sql(table: str | None) -> str:
    """Ranges of points by state: of those with rows, if there are any, then of the marked ones."""
    stored = f"SELECT DISTINCT 0 AS part, 'stored' AS state, point FROM {quoted(table or '')} WHERE {COUNTS}"
    marked = (
        "SELECT 1 AS part, IF(state = 'failed' AND attempt < @wanted, 'due', state) AS state, point "
        "FROM point WHERE experiment_id = @id"
    )
    known = f"{stored} UNION ALL {marked}" if table else marked
    numbered = f"SELECT *, point - ROW_NUMBER() OVER (PARTITION BY part, state ORDER BY point) AS run FROM ({known})"
    return (
        f"SELECT state, MIN(point) AS first, MAX(point) AS last FROM ({numbered}) "
        "GROUP BY part, state, run ORDER BY part, first"
    )
