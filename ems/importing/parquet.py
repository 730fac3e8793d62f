"""Parquet files as they are imported: what cannot be kept is named with its row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ems.base.errors import UserError
from ems.node.job.arrow import from_arrow
from ems.node.job.columns import KnownTypes, Misfit
from ems.node.job.results_file import Chunk
from ems.spool.batch import Column, ColumnType

HINT = (
    "Columns are numbers, text, booleans, dates or times; what has no exact form otherwise may become text: "
    "--type '{name}=text'"
)


class ParquetTable:
    """One file. UserError if it is not whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read as Parquet: {error}.", "Is it whole? Write it anew.") from error
        names: list[str] = self._file.schema_arrow.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{path} has two columns of the name {twice!r}.", "Write it anew with other names.")
        self.types: dict[str, ColumnType] = dict(zip(names, map(_type_of, self._file.schema_arrow.types), strict=True))

    def chunks(self, types: KnownTypes, most_rows: int, most_bytes: int) -> Iterator[Chunk]:
        """Its rows, and their sizes as parts of the file's. UserError at what has no exact form."""
        rows = max(1, self._file.metadata.num_rows)
        groups = [self._file.metadata.row_group(number) for number in range(self._file.metadata.num_row_groups)]
        unpacked = 1 + sum(group.total_byte_size for group in groups) // rows
        size, first = self._path.stat().st_size / rows, 1
        for batch in self._file.iter_batches(max(1, min(most_rows, most_bytes // unpacked))):
            named = zip(batch.schema.names, batch.columns, strict=True)
            columns = [self._column(types, name, values, first) for name, values in named]
            yield Chunk(batch.num_rows, round(batch.num_rows * size), [column for column in columns if column])
            first += batch.num_rows

    def _column(self, types: KnownTypes, name: str, values: Any, first: int) -> Column | None:
        is_text = types.declared.get(name) == "text"
        try:
            return types.typed(name, _values(name, values, is_text))
        except Misfit as misfit:
            raise self._wrong(first + misfit.row, name, misfit) from misfit
        except (TypeError, ValueError) as error:
            raise self._wrong(first + _first_bad(name, values, is_text), name, error) from error

    def _wrong(self, row: int, name: str, error: Exception) -> UserError:
        return UserError(f"{self._path}: row {row:,}: {error}.", HINT.format(name=name))


def _values(name: str, values: Any, is_text: bool) -> Any:
    """As a column's values; where it `is_text`, each as Arrow writes it."""
    if not is_text or pa.types.is_temporal(values.type) or pa.types.is_dictionary(values.type):
        return from_arrow(name, values)
    try:
        return from_arrow(name, values.cast(pa.string()))
    except pa.ArrowException as error:
        raise TypeError(f"column {name!r} is of type {values.type}, which has no text") from error


def _first_bad(name: str, values: Any, is_text: bool) -> int:
    """The first value that has no form here, as an index."""
    for row in range(len(values)):
        try:
            _values(name, values.slice(row, 1), is_text)
        except (TypeError, ValueError):
            return row
    return 0


def _type_of(kind: Any) -> ColumnType:
    """What a column of this type of Arrow's becomes, if it has no value to say so."""
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "int64"
    return "float64" if pa.types.is_floating(kind) or pa.types.is_decimal(kind) else "text"
