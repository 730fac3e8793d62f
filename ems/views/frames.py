"""Results as a pandas DataFrame, in little more memory than the frame itself needs.

Numbers are gathered in one growing array a column, which becomes the frame's column without a copy.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ems.spool.batch import Batch, Column
from ems.spool.kinds import EXACT
from ems.views.results import ARROW

if TYPE_CHECKING:
    import pandas as pd

CODES = {"int64": "q", "float64": "d"}
NAN = float("nan")


def to_frame(batches: Iterable[Batch]) -> pd.DataFrame:
    """All rows in (point, row) order: columns point, row, then as stored; nulls as pandas does, but no digit is lost.

    Without rows, the two columns point and row alone, of whole numbers.
    """
    import pandas as pd

    gathered = {name: _Gathered(Column(name, "int64", array("q"))) for name in ("point", "row")}
    for batch in batches:
        keys = Column("point", "int64", batch.points), Column("row", "int64", batch.rows)
        for column in (*keys, *batch.columns):
            if column.name not in gathered:
                gathered[column.name] = _Gathered(column)
            gathered[column.name].add(column)
    return pd.DataFrame({name: column.values() for name, column in gathered.items()}, copy=False)


class _Gathered:
    """One column of all batches so far: numbers in one array, what has nulls or is none in pieces as they came."""

    def __init__(self, first: Column) -> None:
        self._type = first.type
        self._numbers: array[Any] | None = array(CODES[first.type]) if first.type in CODES else None
        self._pieces: list[Any] = []

    def add(self, column: Column) -> None:
        """The next rows."""
        values: Any = column.values
        if self._numbers is not None and (isinstance(values, array) or None not in values):
            self._numbers.extend(values)
        elif self._numbers is not None and self._type == "float64":
            self._numbers.extend(NAN if value is None else value for value in values)
        else:
            self._add_piece(column)

    def _add_piece(self, column: Column) -> None:
        """An array holds no null."""
        if self._numbers is not None:
            self._pieces, self._numbers = [self._arrow(self._numbers)], None
        self._pieces.append(self._arrow(column.values))

    def _arrow(self, values: Any) -> Any:
        import pyarrow as pa

        return pa.array(values, getattr(pa, ARROW[self._type])())

    def _with_nulls(self) -> Any:
        """Of whole numbers, doubles with NaN, as pandas has them, where each is one exactly; else pandas's Int64."""
        import pandas as pd
        import pyarrow as pa
        from pyarrow import compute

        column = pa.chunked_array(self._pieces)
        if self._type != "int64":
            return column.to_pandas()
        bounds = compute.min_max(column).as_py()
        if bounds["max"] is None or -EXACT <= bounds["min"] <= bounds["max"] <= EXACT:
            return column.to_pandas()
        return column.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)

    def values(self) -> Any:
        """As pandas takes them."""
        if self._numbers is None:
            return self._with_nulls()
        import numpy as np

        return np.frombuffer(self._numbers, dtype=self._type)
