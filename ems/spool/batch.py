"""What goes through the spool: rows in columns, and marks of points without rows.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

ColumnType = Literal["int64", "float64", "text", "bool"]
MarkState = Literal["failed", "empty"]
Value = Union[int, float, str, bool, None]  # noqa: UP007  (evaluated when imported: Python 3.9 knows no `|` here)


@dataclass(frozen=True)
class Column:
    """One column of a batch. `values` has a value or None (null) per row; an array where nothing is null."""

    name: str
    type: ColumnType
    values: list[Value] | array[int] | array[float]


@dataclass(frozen=True)
class Mark:
    """A point without rows: it raised (`error` says how, with its traceback), or its function returned nothing.

    Of an error beyond ERROR_BYTES, a batch file keeps the beginning and the end.
    """

    point: int
    state: MarkState
    parameters: Mapping[str, Value]
    error: str = ""


@dataclass(frozen=True)
class Batch:
    """Rows of one experiment, keyed by (point, row), and marks of points that have none.

    The points in `replaces`, and those marked, lose all rows and marks stored before, in the same transaction, so
    that a point changes as a unit; `replaces` may name points of which the batch has nothing else. Storing the same
    batch twice leaves the same rows and marks.
    """

    points: array[int]  # 'q': the index of each row's point in the grid
    rows: array[int]  # 'q': the index of each row within its point
    columns: tuple[Column, ...]
    replaces: tuple[int, ...] = ()
    marks: tuple[Mark, ...] = ()

    def __len__(self) -> int:
        return len(self.points)


def jsonable(parameters: Mapping[str, Value]) -> dict[str, Any]:
    """A point's parameters as a batch file's header has them: valid JSON, and exact."""
    return {
        name: {"float64": str(value)} if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in parameters.items()
    }


def from_jsonable(values: Mapping[str, Any]) -> dict[str, Value]:
    """The parameters that `jsonable` made `values` of."""
    return {
        name: float(value["float64"]) if isinstance(value, dict) else value  # no parameter is an object otherwise
        for name, value in values.items()
    }
