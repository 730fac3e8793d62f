"""Tables of databases as sources: rows of plain values, typed by one rule for all services."""

from __future__ import annotations

import hashlib
import marshal
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from datetime import time as clock_time
from decimal import Decimal
from typing import Any

from ems.base.errors import UserError
from ems.base.messages import nearest, show, some
from ems.importing.source import Source, refuse_unknown
from ems.node.job.columns import KnownTypes, Misfit
from ems.node.job.results_file import Chunk
from ems.spool.batch import Column, ColumnType, Value
from ems.spool.kinds import Values, of_number

HINT = "What has no exact form here may be imported as text: --type '{name}=text'. Or leave it out by a view."
BITS = 2**256


class TableSource(Source):
    """A table whose rows come as tuples of Python's values."""

    def __init__(self) -> None:
        self._rows_digest = 0

    @abstractmethod
    def pages(self, types: KnownTypes) -> Iterator[Sequence[tuple[Any, ...]]]:
        """The rows, some thousand at a time, in flat memory."""

    def cleaned(self, name: str, value: Any, declared: ColumnType | None) -> Value:  # noqa: ARG002
        """A value as a column may hold it. ValueError, with what is wrong, for one that has no exact form.

        Asked only for values of columns that are not all int, float, str, bool and None, or that are declared.
        """
        return cleaned(value)

    def rows_digest(self) -> str:
        """The sum of the digests of all rows, so that no order counts, with the columns' names."""
        names = "\0".join(self.names()).encode("utf-8", "surrogatepass")
        return hashlib.sha256(names + self._rows_digest.to_bytes(32)).hexdigest()

    def chunks(self, types: KnownTypes) -> Iterator[Chunk]:
        names = self.names()
        refuse_unknown(types.declared, names, "--type")
        self._rows_digest, first = 0, 1
        for rows in self.pages(types):
            columns = [
                self._column(types, name, values, first)
                for name, values in zip(names, zip(*rows, strict=True), strict=True)
            ]
            self._rows_digest = (self._rows_digest + _sum(rows)) % BITS
            yield Chunk(len(rows), len(rows), [column for column in columns if column])
            first += len(rows)

    def _column(self, types: KnownTypes, name: str, values: Sequence[Any], first: int) -> Column | None:
        declared = types.declared.get(name)
        found = values if declared is None and _are_plain(values) else self._cleaned(name, values, declared, first)
        try:
            return types.typed(name, found)
        except Misfit as misfit:
            raise self.wrong(first + misfit.row, name, misfit) from misfit

    def _cleaned(self, name: str, values: Sequence[Any], declared: ColumnType | None, first: int) -> Values:
        make: Callable[[Any], Value] = lambda value: as_declared(self.cleaned(name, value, declared), declared)  # noqa: E731
        found = []
        for row, value in enumerate(values):
            try:
                found.append(None if value is None else make(value))
            except ValueError as error:
                raise self.wrong(
                    first + row, name, f"column {name!r} has {show_value(value)}, which {error}"
                ) from error
        return found

    def wrong(self, row: int, name: str, problem: object) -> UserError:
        """The error for a value; rows are counted from 1."""
        where = f"{self.name}, table {self.table}" if self.table else self.name
        return UserError(f"{where}: row {row:,}: {problem}.", HINT.format(name=name))


PLAIN = frozenset({int, float, str, bool, type(None)})


def _are_plain(values: Iterable[Any]) -> bool:
    return set(map(type, values)) <= PLAIN


def _sum(rows: Iterable[tuple[Any, ...]]) -> int:
    """Version 2 of the format, in which equal values have equal bytes."""
    digests = (hashlib.sha256(_bytes(row)).digest() for row in rows)
    return sum(map(int.from_bytes, digests))


def _bytes(row: tuple[Any, ...]) -> bytes:
    try:
        return marshal.dumps(row, 2)
    except ValueError:  # what is no number, text or bytes
        return repr(row).encode("utf-8", "surrogatepass")


def cleaned(value: Any) -> Value:
    """Of what drivers return: numbers of decimals, text of dates and times. ValueError for what has no exact form."""
    match value:
        case bool() | int() | float() | str() | None:
            return value
        case Decimal():
            return of_number(value)
        case datetime():
            zoned = "" if value.tzinfo is None else "+00:00"
            plain = value if value.tzinfo is None else value.astimezone(UTC)
            return plain.replace(tzinfo=None).isoformat(" ", "microseconds") + zoned
        case date():
            return value.isoformat()
        case clock_time():
            return value.isoformat("microseconds")
    raise ValueError(f"is of type {type(value).__name__}, which has no exact form")


def as_declared(value: Value, declared: ColumnType | None) -> Value:
    """A value in the type that somebody said, where that is the same value; else as it is, which does not fit."""
    match declared, value:
        case "text", bool():
            return str(value).lower()
        case "text", int() | float():
            return repr(value)
        case "bool", int() if value in {0, 1}:
            return bool(value)
        case "int64", float() if value.is_integer():
            return int(value)
    return value


def show_value(value: object) -> str:
    """A value for a message, short."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    return show(value) if isinstance(value, str | int | float) else show(str(value))


def chosen(table: str, there: Sequence[str], name: str) -> str:
    """The table that is meant: the one named, or the only one. UserError if that is none."""
    if not there:
        raise UserError(f"{name} has no table.", "Name another source.")
    if not table and len(there) == 1:
        return there[0]
    if not table:
        raise UserError(f"{name} has {len(there)} tables: {some(list(there))}.", "Name one: --table TABLE")
    if table not in there:
        raise UserError(f"{name} has no table {table!r}: {nearest(table, there)}.")
    return table
