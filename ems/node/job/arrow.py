"""Arrow arrays as columns. Imported only when a Parquet file appears: loading pyarrow takes a while."""

from __future__ import annotations

from array import array
from typing import Any

import pyarrow as pa

from ems.spool.batch import Column


def from_arrow(name: str, values: Any) -> Column | None:
    """`values` (pyarrow.Array) as a column; None if its type is null. TypeError if it is nested, a duration, …"""
    values = _plain(values)
    kind = values.type
    if pa.types.is_null(kind):
        return None
    if pa.types.is_boolean(kind):
        return Column(name, "bool", values.to_pylist())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Column(name, "text", values.to_pylist())
    if pa.types.is_integer(kind) and not _has_giant(values):
        return Column(name, "int64", _numbers("q", values.cast(pa.int64())))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return Column(name, "float64", _numbers("d", values.cast(pa.float64(), safe=False)))
    raise TypeError(f"column {name!r} is of type {kind}")


def _plain(values: Any) -> Any:
    """Without a dictionary; times as `2026-01-31 12:00:00.000000`, of what has a zone in UTC, which is then said."""
    if pa.types.is_dictionary(values.type):
        return _plain(values.dictionary_decode())
    if not pa.types.is_temporal(values.type) or pa.types.is_duration(values.type) or pa.types.is_interval(values.type):
        return values
    if getattr(values.type, "tz", None) is None:
        return values.cast(pa.string())
    utc = values.cast(pa.timestamp(values.type.unit)).cast(pa.string()).to_pylist()
    return pa.array([text and f"{text}+00:00" for text in utc], pa.string())


def _has_giant(values: Any) -> bool:
    """Whether an unsigned integer needs more than 63 bits."""
    return bool(values.type == pa.uint64() and any(v is not None and v >= 2**63 for v in values.to_pylist()))


def _numbers(code: Any, values: Any) -> Any:
    if values.null_count:
        return values.to_pylist()
    numbers: array[Any] = array(code)
    if len(values):
        data = memoryview(values.buffers()[1]).cast("B")
        numbers.frombytes(data[8 * values.offset : 8 * (values.offset + len(values))])
    return numbers
