"""The spool: a folder of batch files between a job and the database. (format: to be written here)"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Literal

ColumnType = Literal["int64", "float64", "text", "bool"]
Value = int | float | str | bool | None


@dataclass(frozen=True)
class Column:
    """One column of a batch. `values` has a value or None (null) per row; an array where nothing is null."""

    name: str
    type: ColumnType
    values: list[Value] | array[int] | array[float]


@dataclass(frozen=True)
class Batch:
    """Rows of one experiment, keyed by (point, row).

    The points in `replaces` lose all rows stored before, in the same transaction, so that a point's rows change as
    a unit; it may name points of which the batch has no row. Storing the same batch twice leaves the same rows.
    """

    points: array[int]  # 'q': the index of each row's point in the grid
    rows: array[int]  # 'q': the index of each row within its point
    columns: tuple[Column, ...]
    replaces: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.points)
