"""Typed columns from what a command writes: one type for each column name over a whole run.

Integers widen to doubles; nothing else changes its type. A column of which only nulls were seen has no type yet.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from ems.spool.batch import Column, ColumnType, Value

_NUMBERS = {"int64", "float64"}
_NULLS = {"", "NA"}
_BOOLS = {"TRUE": True, "True": True, "true": True, "FALSE": False, "False": False, "false": False}
_JSON_TYPES: dict[type, ColumnType] = {int: "int64", float: "float64", str: "text", bool: "bool"}
_CANDIDATES: dict[ColumnType | None, tuple[ColumnType, ...]] = {
    None: ("int64", "float64", "bool"),
    "int64": ("int64", "float64"),
    "float64": ("float64",),
    "bool": ("bool",),
}


class Misfit(Exception):
    """The value in `row` (within the given values) is not of its column's type. Callers add file and line."""

    def __init__(self, row: int, column: str, value: object, expected: str) -> None:
        super().__init__(f"column {column!r} is {expected}, and {value!r} is not")
        self.row = row


class KnownTypes:
    """The column types of one run so far."""

    def __init__(self) -> None:
        self._known: dict[str, ColumnType] = {}

    def from_cells(self, name: str, cells: Sequence[str]) -> Column | None:
        """A column of CSV cells; None while nothing but nulls was seen. Misfit if a cell is not of the known type."""
        known = self._known.get(name)
        if known == "text":
            return _text(name, cells)
        present = [cell for cell in cells if cell not in _NULLS] if not _NULLS.isdisjoint(cells) else cells
        if not present:
            return self._nothing(name, len(cells))
        for candidate in _CANDIDATES[known]:
            values = _parse(candidate, present)
            if values is not None:
                self._known[name] = candidate
                return Column(name, candidate, _with_nulls(values, cells) if len(present) < len(cells) else values)
        if known:
            raise _misfit(name, cells, known)
        self._known[name] = "text"
        return _text(name, cells)

    def from_values(self, name: str, values: list[Any]) -> Column | None:
        """A column of JSON values, taken by their JSON types; None and Misfit as in `from_cells`."""
        kinds = set(map(type, values)) - {type(None)}
        if not kinds:
            return self._nothing(name, len(values))
        if len(kinds) > 1 and kinds != {int, float}:
            first = _JSON_TYPES[next(type(value) for value in values if value is not None)]
            raise _odd_one_out(name, values, first)
        if kinds == {str}:
            _refuse_surrogates(name, values)
        type_ = "float64" if float in kinds or _has_giant(kinds, values) else _JSON_TYPES[kinds.pop()]
        return self.typed(Column(name, type_, values))

    def typed(self, column: Column) -> Column:
        """`column` widened to what its name is known as. Misfit if the types differ otherwise."""
        known = self._known.setdefault(column.name, column.type)
        if known != column.type and not {known, column.type} <= _NUMBERS:
            raise _odd_one_out(column.name, column.values, known)
        if known == "int64":
            self._known[column.name] = known = column.type
        return widened(column) if known == "float64" else column

    def _nothing(self, name: str, rows: int) -> Column | None:
        known = self._known.get(name)
        return Column(name, known, [None] * rows) if known else None


def widened(column: Column) -> Column:
    """The column with its numbers as doubles."""
    values: Any = column.values
    if isinstance(values, array):
        return Column(column.name, "float64", values if values.typecode == "d" else array("d", values))
    return Column(column.name, "float64", [value if value is None else _double(value) for value in values])


def stacked(parts: Sequence[tuple[int, Column | None]]) -> Column:
    """One column of several parts on top of each other; (rows, None) stands for rows of nulls."""
    columns = [column for _, column in parts if column]
    name, types = columns[0].name, {column.type for column in columns}
    if len(types) > 1:
        return stacked([(rows, column and widened(column)) for rows, column in parts])
    if len(columns) == len(parts) and all(isinstance(column.values, array) for column in columns):
        whole: Any = array(_typecode(columns[0]), chain.from_iterable(column.values for column in columns))
        return Column(name, columns[0].type, whole)
    values = chain.from_iterable(column.values if column else [None] * rows for rows, column in parts)
    return Column(name, columns[0].type, list(values))


def _typecode(column: Column) -> Any:
    return "q" if column.type == "int64" else "d"


def _text(name: str, cells: Sequence[str]) -> Column:
    return Column(name, "text", [cell or None for cell in cells] if "" in cells else list(cells))


def _with_nulls(values: Sequence[Value], cells: Sequence[str]) -> list[Value]:
    present = iter(values)
    return [None if cell in _NULLS else next(present) for cell in cells]


def _parse(type_: ColumnType, cells: Sequence[str]) -> Any:
    """The cells as values of `type_`, or None if one of them is not."""
    try:
        return _PARSERS[type_](cells)
    except (ValueError, OverflowError, KeyError):
        return None


def _ints(cells: Sequence[str]) -> array[int]:
    _refuse_python_digits(cells)
    return array("q", map(int, cells))


def _floats(cells: Sequence[str]) -> array[float]:
    _refuse_python_digits(cells)
    return array("d", map(float, cells))


def _bools(cells: Sequence[str]) -> list[bool]:
    return list(map(_BOOLS.__getitem__, cells))


_PARSERS: dict[ColumnType, Callable[[Sequence[str]], Any]] = {"int64": _ints, "float64": _floats, "bool": _bools}


def _refuse_python_digits(cells: Sequence[str]) -> None:
    """Python reads `1_000` and other scripts' digits as numbers; no CSV means them so."""
    text = "".join(cells)
    if "_" in text or not text.isascii():
        raise ValueError(text)


def _misfit(name: str, cells: Sequence[str], known: ColumnType) -> Misfit:
    """The first cell that does not parse as the widest type that `known` allows."""
    widest = _CANDIDATES[known][-1]
    row = next(i for i, cell in enumerate(cells) if cell not in _NULLS and _parse(widest, [cell]) is None)
    return Misfit(row, name, cells[row], known)


def _odd_one_out(name: str, values: Sequence[Any], expected: ColumnType) -> Misfit:
    allowed = _NUMBERS if expected in _NUMBERS else {expected}
    row = next(i for i, v in enumerate(values) if v is not None and _JSON_TYPES[type(v)] not in allowed)
    return Misfit(row, name, values[row], expected)


def _has_giant(kinds: set[type], values: list[Any]) -> bool:
    """Whether an integer needs more than 64 bits."""
    if kinds != {int}:
        return False
    present = [value for value in values if value is not None]
    return bool(max(present) >= 2**63 or min(present) < -(2**63))


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond all doubles: infinite, as its digits in a CSV cell are
        return float("inf") if value > 0 else float("-inf")


def _refuse_surrogates(name: str, values: list[str | None]) -> None:
    for row, value in enumerate(values):
        if value is not None and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise Misfit(row, name, value, "text of whole Unicode characters")
