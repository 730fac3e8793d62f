"""An experiment's results: written out in flat memory, or as a DataFrame."""

from __future__ import annotations

import csv
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.table import Table

from ems.databases import Experiment
from ems.errors import UserError
from ems.node.spool import Batch, Value

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMATS = ("csv", "json", "parquet")
ARROW = {"int64": "int64", "float64": "double", "text": "string", "bool": "bool_"}


def header(batch: Batch) -> list[str]:
    return ["point", "row", *(column.name for column in batch.columns)]


def records(batch: Batch) -> Iterator[tuple[Value, ...]]:
    """The rows of a batch, in the order of `header`."""
    return zip(batch.points, batch.rows, *(column.values for column in batch.columns), strict=True)


def write(batches: Iterable[Batch], format: str, file: IO[Any]) -> int:
    """Write `batches` as one of FORMATS (parquet to a binary file, the others to a text file); returns the rows."""
    writers: dict[str, Callable[[Iterable[Batch], IO[Any]], int]] = {
        "csv": _write_csv,
        "json": _write_json,
        "parquet": _write_parquet,
    }
    return writers[format](batches, file)


def _write_csv(batches: Iterable[Batch], file: IO[str]) -> int:
    writer, rows = csv.writer(file, lineterminator="\n"), 0
    for batch in batches:
        if not rows:
            writer.writerow(header(batch))
        writer.writerows(records(batch))
        rows += len(batch)
    return rows


def _write_json(batches: Iterable[Batch], file: IO[str]) -> int:
    """An array of objects, one a line. JSON has no infinities: they become the texts "inf" and "-inf"."""
    rows = 0
    file.write("[")
    for batch in batches:
        names = header(batch)
        for record in records(batch):
            file.write(",\n" if rows else "\n")
            file.write(json.dumps(dict(zip(names, map(_jsonable, record), strict=True)), ensure_ascii=False))
            rows += 1
    file.write("\n]\n")
    return rows


def _jsonable(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _write_parquet(batches: Iterable[Batch], file: IO[bytes]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = (to_arrow(batch) for batch in batches)
    first = next(tables, None)
    if first is None:
        pq.write_table(pa.table({}), file)
        return 0
    rows = 0
    with pq.ParquetWriter(file, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)
            rows += table.num_rows
    return rows


def to_arrow(batch: Batch) -> pa.Table:
    import pyarrow as pa

    columns = {"point": pa.array(batch.points, pa.int64()), "row": pa.array(batch.rows, pa.int64())}
    for column in batch.columns:
        columns[column.name] = pa.array(column.values, getattr(pa, ARROW[column.type])())
    return pa.table(columns)


def to_frame(batches: Iterable[Batch]) -> pd.DataFrame:
    """All rows in (point, row) order: columns point, row, then as stored; nulls as pandas does."""
    import pandas as pd
    import pyarrow as pa

    tables = [to_arrow(batch) for batch in batches]
    return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame({"point": [], "row": []}, dtype="int64")


def table(batches: Iterable[Batch], experiment: Experiment, most: int = 20) -> Table:
    """The first `most` rows, for a terminal."""
    row = experiment.registration
    shown = Table(title=f"{row.stack}: {experiment.rows_stored:,} rows in {row.results_table}", title_justify="left")
    first = next(iter(batches), None)
    for name in header(first) if first else ():
        shown.add_column(name)
    for record in itertools.islice(records(first), most) if first else ():
        shown.add_row(*("" if value is None else f"{value}" for value in record))
    return shown


def export(batches: Iterable[Batch], format: str, path: Path | None) -> int:
    """Write `batches` as `format` to a file, aside and renamed, or to standard output; returns the rows."""
    if format not in FORMATS:
        raise UserError(f"--format is {format!r}.", f"Allowed: {', '.join(FORMATS)}")
    if path is None:
        return write(batches, format, sys.stdout.buffer if format == "parquet" else sys.stdout)
    aside = path.with_name(f".{path.name}.partial")
    try:
        with aside.open("wb") if format == "parquet" else aside.open("w", encoding="utf-8", newline="") as file:
            rows = write(batches, format, file)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
    aside.replace(path)
    return rows
