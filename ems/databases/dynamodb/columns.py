"""The columns of a results table in DynamoDB: one item of the registry, by which its rows are read.

An integer that is not an exact double is noted with its column before it is stored, so that the column can never become
double, whoever writes at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ems.base.errors import DatabaseError
from ems.databases import columns
from ems.databases.dynamodb.errors import Changed
from ems.databases.dynamodb.items import ITEM_BYTES, NUMBER_BYTES, whole
from ems.databases.dynamodb.service import Service
from ems.spool.batch import Batch, Column, ColumnType

EXACT = 2**53
COLUMN_BYTES = len("nametypeinexactfloat64") + NUMBER_BYTES


@dataclass(frozen=True)
class Layout:
    """`inexact`: of some columns of integers, one that is not an exact double; `revision` 0: there is no such table."""

    types: Mapping[str, ColumnType]
    inexact: Mapping[str, int]
    revision: int


def find(service: Service, table: str) -> Layout:
    """The columns of a results table; none, and revision 0, if it is not there yet."""
    item = service.get("table", table) if table else None  # "": of a job without rows
    if item is None:
        return Layout({}, {}, 0)
    found = [column["M"] for column in item["columns"]["L"]]
    types = {column["name"]["S"]: column["type"]["S"] for column in found}
    inexact = {column["name"]["S"]: whole(column["inexact"]["N"]) for column in found if "inexact" in column}
    return Layout(types, inexact, whole(item["revision"]["N"]))


def fitted(service: Service, table: str, batch: Batch) -> tuple[Column, ...]:
    """The batch's columns as they are stored, once the table has them. DatabaseError if they do not fit."""
    if not columns.has_table(table, batch):
        return ()
    for _ in service.tries():
        layout = find(service, table)
        fitting, wanted = _meet(table, layout, batch)
        if layout.revision and (layout.types, layout.inexact) == (wanted.types, wanted.inexact):
            return fitting
        try:
            _save(service, table, wanted)
            return fitting
        except Changed:
            continue
    raise AssertionError("tries end with an error")


def check(service: Service, table: str, batch: Batch) -> None:
    """As `Database.check_columns`."""
    _, wanted = _meet(table, find(service, table), batch)
    _check_room(table, wanted)


def _meet(table: str, layout: Layout, batch: Batch) -> tuple[tuple[Column, ...], Layout]:
    change = columns.meet(table, layout.types, batch.columns)
    for name in change.widened:
        if name in layout.inexact:
            raise columns.inexact(table, name, layout.inexact[name])
    widened: dict[str, ColumnType] = dict.fromkeys(change.widened, "float64")
    types = {**layout.types, **change.added, **widened}
    fitting = tuple(columns.as_stored(table, column, types[column.name]) for column in batch.columns)
    inexact = {c.name: n for c in fitting if types[c.name] == "int64" for n in _inexact(c)} | dict(layout.inexact)
    return fitting, Layout(types, inexact, layout.revision + 1)


def _inexact(column: Column) -> Iterator[int]:
    great = (value for value in column.values if value is not None and not -EXACT <= int(value) <= EXACT)
    return (int(value) for value in great if int(float(value)) != value)


def _check_room(table: str, layout: Layout) -> None:
    size = sum(len(name.encode()) + COLUMN_BYTES for name in layout.types)
    if size > ITEM_BYTES:
        raise DatabaseError(
            f"results table {table!r} would have {len(layout.types)} columns; DynamoDB has no room for their names.",
            "Allowed are some 6,000. Write long vectors as rows (one per element), or use another database.",
        )


def _save(service: Service, table: str, layout: Layout) -> None:
    _check_room(table, layout)
    described = [{"M": _described(layout, name)} for name in layout.types]
    revision = {"N": str(layout.revision)}
    item = {"pk": {"S": "table"}, "sk": {"S": table}, "columns": {"L": described}, "revision": revision}
    condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
    if layout.revision > 1:
        was = {":was": {"N": str(layout.revision - 1)}}
        condition = {"ConditionExpression": "revision = :was", "ExpressionAttributeValues": was}
    service.call("put_item", TableName=service.registry, Item=item, **condition)


def _described(layout: Layout, name: str) -> dict[str, Any]:
    described = {"name": {"S": name}, "type": {"S": layout.types[name]}}
    return described | ({"inexact": {"N": str(layout.inexact[name])}} if name in layout.inexact else {})
