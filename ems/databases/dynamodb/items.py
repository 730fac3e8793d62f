"""How values lie in DynamoDB's items, readable without EMS.

A number is an `N` that reads back as the same double. What DynamoDB has no number for is text in Python's way of
writing it: `nan`, `inf`, `-inf`, `-0.0`, and doubles beyond 1e-130 to 1e126, as `1e+300`. A null has no attribute.

The sort key of a row is `POINT ROW BATCH` in decimals of 19, 19 and 10 digits. A row beyond 400 KB goes on in items
`POINT ROW BATCH PART`; the pieces of a text follow one another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from ems.base.errors import DatabaseError
from ems.databases import tables
from ems.spool.batch import Batch, Column, ColumnType, Value

Attribute = dict[str, Any]  # {"N": "1"}
Item = dict[str, Attribute]

SHARDS = 8  # of an experiment's rows: 1,000 rows of up to 1 kB a second each
MARKS, LOG = "marks", "log"  # its partitions beside those
ITEM_BYTES = 390_000  # DynamoDB's 409,600, less key and attributes of EMS
PIECE_CHARACTERS = 90_000
NUMBER_BYTES = 24
KEY_LENGTH = 19 + 1 + 19 + 1 + 10
LEAST, MOST = 1e-130, 1e126  # of a number's magnitude
KINDS: dict[str, type[Any]] = {
    column.name: datetime if isinstance(column.type, tables.UtcTime) else column.type.python_type
    for table in (tables.experiment, tables.run, tables.charge, tables.funding)
    for column in table.c
}

# Values


def double(value: float) -> Attribute:
    """A double as an `N`, or as text where DynamoDB has no number for it."""
    size = abs(value)
    if LEAST <= size < MOST or (size == 0 and math.copysign(1, value) > 0):
        return {"N": repr(value)}
    return {"S": repr(value)}


def attribute(value: Any) -> Attribute:
    """Of a value that EMS itself keeps of an experiment."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        return {"N": str(value)}
    if isinstance(value, float):
        return double(value)
    if isinstance(value, frozenset):
        return {"NS": sorted(map(str, value))}
    return {"S": value.isoformat() if isinstance(value, date) else tables.storable(value)}


def item_of(values: Mapping[str, Any]) -> Item:
    """The item of values that EMS itself keeps; None becomes no attribute."""
    return {name: attribute(value) for name, value in values.items() if value is not None}


def values_of(item: Item) -> dict[str, Any]:
    """The values that `item_of` made the item of, but for None; their types go by their names."""
    return {name: _value_of(KINDS.get(name), *found) for name, attribute in item.items() for found in attribute.items()}


def _value_of(kind: type[Any] | None, tag: str, raw: Any) -> Any:
    if tag == "NS":
        return frozenset(map(int, raw))
    if kind is float:
        return float(raw)
    if tag == "N":
        return whole(raw)
    if kind in {datetime, date}:
        return kind.fromisoformat(raw)
    return raw


def whole(text: str) -> int:
    """The integer in an `N`, which may be written with an exponent."""
    return int(text) if text.lstrip("-").isdecimal() else int(Decimal(text))


# Spans


def span_text(spans: Iterable[tuple[int, int]]) -> str:
    """Inclusive spans as `0-24,30`."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def spans_of(text: str) -> list[tuple[int, int]]:
    """The inclusive spans in what `span_text` wrote."""
    pairs = (part.partition("-") for part in text.split(",") if part)
    return [(int(first), int(last or first)) for first, _, last in pairs]


# Keys


def partition(experiment_id: str, name: object) -> str:
    """The key of one partition of an experiment's results; `name`: a shard's number, MARKS or LOG."""
    return f"{experiment_id}/{name}"


def shard(point: int, row: int) -> int:
    """Neighbouring points lie apart, and so do the rows of one, so that no partition is written to alone."""
    return (point + row) % SHARDS


def sort_key(point: int, row: int, batch: int) -> str:
    """The key of a row or mark of this batch; as text it sorts by point, row and batch."""
    return f"{point:019d} {row:019d} {batch:010d}"


def key_bounds(first: tuple[int, int], last: tuple[int, int]) -> tuple[str, str]:
    """Of all items from the (point, row) `first` to `last`."""
    return f"{first[0]:019d} {first[1]:019d}", f"{last[0]:019d} {last[1]:019d}~"


def point_bounds(first: int, last: int) -> tuple[str, str]:
    """Of all items from the point `first` to the point `last`."""
    return f"{first:019d}", f"{last:019d}~"


def parsed(key: str) -> tuple[int, int, int]:
    """Point, row and batch."""
    return int(key[:19]), int(key[20:39]), int(key[40:50])


# Rows

_ENCODE: dict[ColumnType, Callable[[Any], Attribute]] = {
    "int64": lambda value: {"N": str(value)},
    "float64": double,
    "text": lambda value: {"S": value},
    "bool": lambda value: {"BOOL": value},
}
_DECODE: dict[ColumnType, Callable[[Attribute], Value]] = {
    "int64": lambda attribute: whole(attribute["N"]),
    "float64": lambda attribute: float(attribute["N"] if "N" in attribute else attribute["S"]),
    "text": lambda attribute: attribute["S"],
    "bool": lambda attribute: attribute["BOOL"],
}


def row_items(experiment_id: str, number: int, batch: Batch) -> Iterator[Item]:
    """The items of the batch's rows under the batch's number; of rows with the same key, the last."""
    names = [column.name for column in batch.columns]
    encoders = [_ENCODE[column.type] for column in batch.columns]
    split = _parts if _may_be_large(batch.columns) else lambda item: (item,)
    rows = zip(*(column.values for column in batch.columns), strict=True) if names else [()] * len(batch)
    last = {key: index for index, key in enumerate(zip(batch.points, batch.rows, strict=True))}
    for index, ((point, row), values) in enumerate(zip(zip(batch.points, batch.rows, strict=True), rows, strict=True)):
        if last[point, row] == index:
            item = {n: encode(v) for n, encode, v in zip(names, encoders, values, strict=True) if v is not None}
            item |= {"point": {"N": str(point)}, "row": {"N": str(row)}}
            item["experiment_id"] = {"S": partition(experiment_id, shard(point, row))}
            item["rowid"] = {"S": sort_key(point, row, number)}
            yield from split(item)


def _may_be_large(columns: Sequence[Column]) -> bool:
    names = sum(len(column.name.encode()) + NUMBER_BYTES for column in columns)
    texts = [column.values for column in columns if column.type == "text"]
    longest = (max((len(value) for value in values if isinstance(value, str)), default=0) for values in texts)
    return names + 4 * sum(longest) > ITEM_BYTES


def _parts(item: Item) -> Iterator[Item]:
    key = {name: item.pop(name) for name in ("experiment_id", "rowid")}
    part: Item = {}
    size, number = 0, 0
    for name, piece in _pieces(item):
        cost = len(name.encode()) + (len(piece["S"].encode()) if "S" in piece else NUMBER_BYTES)
        if name in part or size + cost > ITEM_BYTES:
            yield key | part
            number, size, part = number + 1, 0, {}
            key = key | {"rowid": {"S": f"{key['rowid']['S'][:KEY_LENGTH]} {number:04d}"}}
        part[name] = piece
        size += cost
    yield key | part


def _pieces(item: Item) -> Iterator[tuple[str, Attribute]]:
    for name, whole_one in item.items():
        text = whole_one.get("S", "")
        for start in range(0, max(len(text), 1), PIECE_CHARACTERS):
            yield name, {"S": text[start : start + PIECE_CHARACTERS]} if "S" in whole_one else whole_one


def joined(items: Iterable[Item]) -> Iterator[Item]:
    """Each row as one item again."""
    row: Item | None = None
    for item in items:
        key = item["rowid"]["S"]
        if row is not None and len(key) > KEY_LENGTH:
            _join(row, item)
            continue
        if row is not None:
            yield row
        row = item
    if row is not None:
        yield row


def _join(row: Item, more: Item) -> None:
    for name, piece in more.items():
        if name in row and name not in {"experiment_id", "rowid"}:
            row[name] = {"S": row[name]["S"] + piece["S"]}
        else:
            row.setdefault(name, piece)


def decoded(item: Item, types: Sequence[tuple[str, ColumnType]]) -> list[Value]:
    """A row's values in the columns of `types`; None where the item has no attribute."""
    return [_DECODE[type](item[name]) if name in item else None for name, type in types]


def check_values(table: str, batch: Batch) -> None:
    """DatabaseError for text that is no Unicode, and for integers that DynamoDB would take but no column can hold."""
    for column in batch.columns:
        if column.type not in {"text", "int64"} or not isinstance(column.values, list):
            continue
        found: list[Any] = [value for value in column.values if value is not None]
        if column.type == "text" and (reason := _not_unicode(found)):
            raise _cannot_be_stored(table, column.name, reason)
        if column.type == "int64" and found and not -(2**63) <= min(found) <= max(found) < 2**63:
            raise _cannot_be_stored(table, column.name, "an integer has more than 64 bits")


def _not_unicode(texts: Sequence[Any]) -> str:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        return error.reason
    return ""


def _cannot_be_stored(table: str, name: str, reason: str) -> DatabaseError:
    return DatabaseError(
        f"results table {table!r}: a value cannot be stored in {name!r}: {reason}.",
        "Allowed: text that is valid Unicode, integers from -2^63 to 2^63-1.",
    )
