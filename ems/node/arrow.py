"""Arrow arrays as columns. Imported only when a Parquet file appears: loading pyarrow takes a while."""

from __future__ import annotations

from array import array
from typing import Any

import pyarrow as pa

from ems.node.spool import Column


def from_arrow(name: str, values: Any) -> Column | None:
    """`values` (pyarrow.Array) as a column; None if its type is null. TypeError if it is nested, a time, …"""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return from_arrow(name, values.dictionary_decode())
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
