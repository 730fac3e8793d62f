"""Typed columns from what a command writes: one type for each column name over a whole run.

The stack file may declare a column's type; otherwise the first value settles it, as `ems.spool.kinds` says. Nothing
depends on when values arrive. A column of which only nulls were seen has no type yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from ems.base.messages import show
from ems.spool.batch import Column, ColumnType
from ems.spool.kinds import DECLARED, Kind, Values, column, kind_of, settled

WORDS: Mapping[ColumnType, str] = {type_: word for word, type_ in DECLARED.items()}


class Misfit(Exception):
    """The value in `row` (within the given values) does not fit its column. Callers add file and line."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row = row

    @classmethod
    def of_type(cls, row: int, name: str, value: object, expected: str) -> Misfit:
        """It is of another type than its column."""
        return cls(row, f"column {name!r} is of type {expected}, and {show(value)} is not")


class KnownTypes:
    """The column types of one run so far. `declared`: those that the stack file says."""

    def __init__(self, declared: Mapping[str, ColumnType] | None = None) -> None:
        self.declared: Mapping[str, ColumnType] = declared or {}
        self.known: dict[str, Kind] = {}
        self.awaited = set(self.declared)  # those of which no value has come

    def typed(self, name: str, values: Values) -> Column | None:
        """A column of `values`; None while nothing but nulls was seen. Misfit at the first value that does not fit."""
        if name in self.declared:
            if name in self.awaited and any(value is not None for value in values):
                self.awaited.discard(name)
            return _as_declared(name, values, self.declared[name])
        kind, misfits = settled(values, self.known.get(name))
        if misfits:
            row = min(misfits)
            raise _misfit(row, name, values[row], misfits[row])
        if kind is None:
            return None
        self.known[name] = kind
        return column(name, kind, values)


def _misfit(row: int, name: str, value: Any, was: Kind | None) -> Misfit:
    if was == "float64" and type(value) is int:
        return Misfit(row, f"column {name!r} is of type float, and {show(value)} is not an exact double")
    if was == "giant":
        problem = f"has integers that are not exact doubles, and {show(value)} is not an integer of 64 bits"
        return Misfit(row, f"column {name!r} {problem}")
    if was:
        return Misfit.of_type(row, name, value, WORDS[was])
    what = "is not Unicode" if isinstance(value, str) else "has more than 64 bits and is not an exact double"
    return Misfit(row, f"column {name!r}: {show(value)} {what}")


def _as_declared(name: str, values: Values, type_: ColumnType) -> Column:
    """Whole numbers of a column that was declared as float are rounded to doubles."""
    fits = _FITS[type_]
    for row, value in enumerate(values):
        if value is not None and not fits(value):
            raise Misfit.of_type(row, name, value, WORDS[type_])
    return column(name, type_, values)


_BEYOND = 2**1024 - 2**970  # integers from here on are not rounded to a double
_FITS: dict[ColumnType, Callable[[Any], bool]] = {
    "text": lambda value: type(value) is str and kind_of(value) == "text",
    "bool": lambda value: type(value) is bool,
    "int64": lambda value: type(value) is int and -(2**63) <= value < 2**63,
    "float64": lambda value: type(value) is float or (type(value) is int and -_BEYOND < value < _BEYOND),
}


def stacked(parts: Sequence[tuple[int, Column | None]]) -> Column:
    """One column of several parts on top of each other; (rows, None) stands for rows of nulls."""
    columns = [part for _, part in parts if part]
    name, types = columns[0].name, {part.type for part in columns}
    kind: Kind = "float64" if len(types) > 1 else columns[0].type
    return column(name, kind, list(chain.from_iterable(part.values if part else [None] * rows for rows, part in parts)))
