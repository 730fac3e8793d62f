"""Arrow arrays as values. Imported only when a Parquet file appears: loading pyarrow takes a while."""

from __future__ import annotations

from array import array
from typing import Any

import pyarrow as pa

from ems.spool.kinds import Values, of_number


def from_arrow(name: str, values: Any) -> Values:
    """`values` (pyarrow.Array) as a column's values. TypeError if it is nested, a duration, …

    ValueError for a decimal number with more digits than a double keeps.
    """
    values = _plain(values)
    kind = values.type
    if pa.types.is_null(kind) or pa.types.is_boolean(kind) or _is_text(kind) or _has_giant(values):
        return list(values.to_pylist())
    if pa.types.is_decimal(kind):
        return [None if value is None else _of_decimal(name, value) for value in values.to_pylist()]
    if pa.types.is_integer(kind):
        return _numbers("q", values.cast(pa.int64()))
    if pa.types.is_floating(kind):
        return _numbers("d", values.cast(pa.float64()))
    raise TypeError(f"column {name!r} is of type {kind}")


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _of_decimal(name: str, value: Any) -> int | float:
    try:
        return of_number(value)
    except ValueError as error:
        raise ValueError(f"column {name!r} is {value}, which {error}") from error


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
    giant = values.type == pa.uint64() and any(value is not None and value >= 2**63 for value in values.to_pylist())
    return bool(giant)


def _numbers(code: Any, values: Any) -> Values:
    if values.null_count:
        return list(values.to_pylist())
    numbers: array[Any] = array(code)
    if len(values):
        data = memoryview(values.buffers()[1]).cast("B")
        numbers.frombytes(data[8 * values.offset : 8 * (values.offset + len(values))])
    return numbers
