"""Batches as bytes: the format of the spool's files.

A batch file, all numbers little-endian:

    8 bytes   magic `EMSBAT01`
    uint32    CRC-32 of all that follows
    uint32    length of the header in bytes
    header    UTF-8 JSON: {"rows": n, "replaces": [point, …], "columns": [{"name", "type", "nulls"}, …],
              "marks": [{"point", "state", "parameters", "error"}, …]}; files without "marks" have none
    n int64   point of each row
    n int64   row within the point
    then, for each column of the header in turn:
      if "nulls": (n + 7) // 8 bytes, bit i % 8 of byte i // 8 is 1 where row i is null
      "int64"   n int64      (0 where null)
      "float64" n IEEE 754 doubles (0 where null)
      "bool"    n bytes, 0 or 1    (0 where null)
      "text"    n + 1 int64 offsets, then the UTF-8 text of all rows (empty where null)

In "parameters", floats are written so that they read back the same; those that JSON has no number for are objects:
{"float64": "nan"}, {"float64": "inf"}, {"float64": "-inf"}.

Standard library alone, Python 3.9 or newer: drivers in other environments write batches too.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Literal

from ems.base.errors import EmsError
from ems.spool.batch import Batch, Column, ColumnType, Mark, Value, from_jsonable, jsonable

ERROR_BYTES = 4096
_CUT = b"\n...\n"
_MAGIC = b"EMSBAT01"
_PREFIX = struct.Struct("<8sI")
_LENGTH = struct.Struct("<I")
_ZERO: dict[str, Any] = {"int64": 0, "float64": 0.0, "bool": False, "text": ""}


class SpoolError(EmsError):
    """A batch that cannot be written as it is, or a batch file that is not whole."""


def encode(batch: Batch) -> bytes:
    """A batch file's bytes.

    SpoolError if a value does not fit its column's type, or a column has more or fewer values than there are rows.
    """
    header = {
        "rows": len(batch),
        "replaces": list(batch.replaces),
        "columns": [{"name": c.name, "type": c.type, "nulls": _has_nulls(c)} for c in batch.columns],
        "marks": list(map(_encode_mark, batch.marks)),
    }
    text = _json(header)
    parts = [text, _numbers("q", batch.points), _numbers("q", batch.rows)]
    for column in batch.columns:
        if len(column.values) != len(batch):
            raise SpoolError(f"Column {column.name!r} has {len(column.values)} values for {len(batch)} rows.")
        parts += _encode_column(column)
    body = b"".join([_LENGTH.pack(len(text)), *parts])
    return _PREFIX.pack(_MAGIC, zlib.crc32(body)) + body


def decode(data: bytes) -> Batch:
    """The batch that `encode` made `data` of; SpoolError if it is anything else."""
    if len(data) < _PREFIX.size + _LENGTH.size:
        raise SpoolError(f"The batch is truncated: {len(data)} bytes.")
    magic, checksum = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise SpoolError(f"Not a batch file of this version: it begins with {magic!r}, not {_MAGIC!r}.")
    body = memoryview(data)[_PREFIX.size :]
    if zlib.crc32(body) != checksum:
        raise SpoolError("The batch is truncated or damaged: its checksum does not match.")
    try:
        return _decode(body)
    except (LookupError, TypeError, ValueError) as error:
        raise SpoolError(f"Not a batch file of this version: {error!r}.") from error


def _decode(body: memoryview) -> Batch:
    (length,) = _LENGTH.unpack_from(body)
    begin, end = _LENGTH.size, _LENGTH.size + length
    header = json.loads(bytes(body[begin:end]))
    cursor = _Cursor(body, end, header["rows"])
    points, rows = cursor.ints(cursor.rows), cursor.ints(cursor.rows)
    columns = tuple(_decode_column(entry, cursor) for entry in header["columns"])
    marks = tuple(map(_decode_mark, header.get("marks", ())))
    return Batch(points, rows, columns, tuple(header["replaces"]), marks)


def _encode_mark(mark: Mark) -> dict[str, Any]:
    parameters = jsonable(mark.parameters)
    return {"point": mark.point, "state": mark.state, "parameters": parameters, "error": _clipped(mark.error)}


def _decode_mark(entry: dict[str, Any]) -> Mark:
    return Mark(entry["point"], entry["state"], from_jsonable(entry["parameters"]), entry["error"])


def _clipped(error: str) -> str:
    """Valid Unicode of at most ERROR_BYTES: a traceback says first where, and last what."""
    data = error.encode(errors="backslashreplace")
    if len(data) > ERROR_BYTES:
        part = (ERROR_BYTES - len(_CUT)) // 2
        data = data[:part] + _CUT + data[-part:]
    return data.decode(errors="ignore")


def _json(header: dict[str, Any]) -> bytes:
    try:
        return json.dumps(header).encode()
    except TypeError as error:
        raise SpoolError(
            f"The batch's points or parameters cannot be written: {error}.",
            "Allowed: Python's int, float, str, bool and None.",
        ) from error


def _has_nulls(column: Column) -> bool:
    return not isinstance(column.values, array) and None in column.values


def _encode_column(column: Column) -> list[bytes]:
    values: Any = column.values
    parts = []
    if _has_nulls(column):
        parts.append(_bitmap(values))
        zero = _ZERO[column.type]
        values = [zero if value is None else value for value in values]
    try:
        if column.type == "text":
            return parts + _encode_text(values)
        if column.type == "bool":
            return [*parts, bytes(map(bool, values))]
        return [*parts, _numbers("q" if column.type == "int64" else "d", values)]
    except (TypeError, ValueError, OverflowError) as error:
        raise SpoolError(f"Column {column.name!r} has a value that is not {column.type}: {error}.") from error


def _numbers(code: Literal["q", "d"], values: Iterable[Any]) -> bytes:
    numbers = values if isinstance(values, array) and values.typecode == code else array(code, values)
    return _little_endian(numbers).tobytes()


def _little_endian(numbers: array[Any]) -> array[Any]:
    """`numbers` with the bytes of this machine's order turned into those of the file, or back."""
    if sys.byteorder == "little":
        return numbers
    swapped = numbers[:]
    swapped.byteswap()
    return swapped


def _bitmap(values: list[Value]) -> bytes:
    """Bits through one big integer: the packing then runs at the speed of C."""
    digits = "".join(["1" if value is None else "0" for value in reversed(values)])
    return int(digits, 2).to_bytes((len(values) + 7) // 8, "little")


def _encode_text(values: list[str]) -> list[bytes]:
    text = "".join(values).encode()
    lengths: Iterable[int] = map(len, values) if text.isascii() else [len(value.encode()) for value in values]
    return [_numbers("q", accumulate(lengths, initial=0)), text]


class _Cursor:
    def __init__(self, data: memoryview, position: int, rows: int) -> None:
        self._data, self._position, self.rows = data, position, rows

    def take(self, size: int) -> memoryview:
        part = self._data[self._position : self._position + size]
        self._position += size
        return part

    def ints(self, count: int) -> array[int]:
        return self._array("q", count)

    def floats(self, count: int) -> array[float]:
        return self._array("d", count)

    def _array(self, code: Literal["q", "d"], count: int) -> array[Any]:
        numbers: array[Any] = array(code)
        numbers.frombytes(self.take(8 * count))
        return _little_endian(numbers)


def _decode_column(entry: dict[str, Any], cursor: _Cursor) -> Column:
    nulls = cursor.take((cursor.rows + 7) // 8) if entry["nulls"] else None
    values = _decode_values(entry["type"], cursor)
    if nulls is not None:
        digits = format(int.from_bytes(nulls, "little"), f"0{cursor.rows}b")
        values = [None if digits[-1 - i] == "1" else value for i, value in enumerate(values)]
    return Column(entry["name"], entry["type"], values)


def _decode_values(type_: ColumnType, cursor: _Cursor) -> Any:
    if type_ == "int64":
        return cursor.ints(cursor.rows)
    if type_ == "float64":
        return cursor.floats(cursor.rows)
    if type_ == "bool":
        return list(map(bool, cursor.take(cursor.rows)))
    offsets = cursor.ints(cursor.rows + 1)
    return _decode_text(bytes(cursor.take(offsets[-1])), offsets)


def _decode_text(data: bytes, offsets: array[int]) -> list[str]:
    slices = map(slice, offsets, offsets[1:])
    if data.isascii():
        return list(map(data.decode("ascii").__getitem__, slices))
    return [data[part].decode() for part in slices]
