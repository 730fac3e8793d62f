"""An experiment's results: shown, or written out in flat memory."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from ems.base import aside
from ems.base.console import Text, text_out
from ems.base.errors import UserError
from ems.databases import Condition, Experiment
from ems.spool.batch import Batch, Column, Value
from ems.views.where import show

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS, MOST_COLUMNS = 20, 8  # on a terminal
GROUP_CELLS = 1_000_000
FORMATS = ("csv", "json", "parquet")
_PLAIN = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)  # names that stand in CSV as they are
ARROW = {"int64": "int64", "float64": "float64", "text": "string", "bool": "bool_"}


def header(batch: Batch) -> list[str]:
    """The names of the columns: point, row, then those of the batch."""
    return ["point", "row", *(column.name for column in batch.columns)]


def records(batch: Batch) -> Iterator[tuple[Value, ...]]:
    """The rows of a batch, in the order of `header`."""
    return zip(batch.points, batch.rows, *(column.values for column in batch.columns), strict=True)


def write(batches: Iterable[Batch], format: str, file: IO[Any]) -> int:
    """Write `batches` as one of FORMATS (parquet to a binary file, the others to a text file); returns how many rows.

    JSON has no number for NaN and the infinities: they become null, "inf" and "-inf".
    """
    writers: dict[str, Callable[[Iterable[Batch], IO[Any]], int]] = {
        "csv": _write_csv,
        "json": _write_json,
        "parquet": _write_parquet,
    }
    return writers[format](batches, file)


def _write_csv(batches: Iterable[Batch], file: IO[str]) -> int:
    """Text stands in quotes, and names where they need them; nulls are empty. So `""`, `"NA"` and `"01"` stay text."""
    rows = 0
    for batch in batches:
        if not rows:
            file.write(",".join(name if _PLAIN.fullmatch(name) else _quoted(name) for name in header(batch)) + "\n")
        columns = [map(str, batch.points), map(str, batch.rows), *map(_csv_cells, batch.columns)]
        file.writelines(",".join(cells) + "\n" for cells in zip(*columns, strict=True))
        rows += len(batch)
    return rows


def _csv_cells(column: Column) -> list[str]:
    shown: Callable[[Any], str] = _quoted if column.type == "text" else repr
    return ["" if value is None else shown(value) for value in column.values]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


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

    tables = _row_groups(batches)
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


def _row_groups(batches: Iterable[Batch]) -> Iterator[pa.Table]:
    """Batches joined to some GROUP_CELLS: each row group costs memory and room for each column."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for table in map(to_arrow, batches):
        waiting.append(table)
        if sum(part.num_rows for part in waiting) * table.num_columns >= GROUP_CELLS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def to_arrow(batch: Batch) -> pa.Table:
    """A batch as a table of the columns in `header`: int64, double, string or bool, with nulls."""
    import pyarrow as pa

    columns = {"point": pa.array(batch.points, pa.int64()), "row": pa.array(batch.rows, pa.int64())}
    for column in batch.columns:
        columns[column.name] = pa.array(column.values, getattr(pa, ARROW[column.type])())
    return pa.table(columns)


def table(batches: Iterable[Batch], experiment: Experiment, where: Sequence[Condition] = ()) -> RenderableType:
    """The first rows and columns, for a terminal; floats with 6 digits."""
    first = next(iter(batches), None)
    if first is None and where:
        return Text(f"{experiment.registration.stack}: no row fulfils {_shown(where)}{missing(experiment)}.")
    if first is None:
        return Text(f"{experiment.registration.stack}: no rows yet, its state is {experiment.state}.")
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header(first)[:MOST_COLUMNS]:
        shown.add_column(Text(name), overflow="fold")
    for record in itertools.islice(records(first), MOST_ROWS):
        shown.add_row(*map(_cell, record[:MOST_COLUMNS]))
    return Group(_title(first, experiment, where), shown)


def _title(first: Batch, experiment: Experiment, where: Sequence[Condition]) -> Text:
    row, names = experiment.registration, header(first)
    rows = f"rows with {_shown(where)};" if where else f"{experiment.rows_stored:,} rows and"
    title = f"{row.stack}: {rows} {len(names):,} columns in {row.results_table}"
    cut = len(names) > MOST_COLUMNS or len(first) > MOST_ROWS
    return Text(f"{title}, the first of them" if cut else title)


def _shown(where: Sequence[Condition]) -> str:
    return " and ".join(map(show, where))


def _cell(value: Value) -> Text:
    if value is None:
        return Text("")
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return Text(text, justify="left" if isinstance(value, str) else "right")


def format_of(format: str, path: Path | None) -> str:
    """The format that was asked for, by name or by the end of the file's name; "" if neither says.

    UserError for another one than those of FORMATS.
    """
    asked = format or (path.suffix.lstrip(".") if path else "")
    if asked not in FORMATS and (format or path):
        what = f"--format is {asked!r}" if format else f"--out is {str(path)!r}, whose end names no format"
        raise UserError(f"{what}.", f"Allowed: {', '.join(FORMATS)}, as `--format csv` or `--out FILE.csv`.")
    return asked


def missing(experiment: Experiment) -> str:
    """Such as `; 12 of 3,120 points are still missing`; "" where none is."""
    total = experiment.registration.points_total
    left = total - experiment.points_done
    return f"; {left:,} of {total:,} points are still missing" if left > 0 else ""


def _opened(path: Path, format: str) -> IO[Any]:
    return path.open("wb") if format == "parquet" else path.open("w", encoding="utf-8", newline="")


def export(batches: Iterable[Batch], format: str, path: Path | None) -> int:
    """Write `batches` as `format` to a file, aside and renamed, or to standard output; returns how many rows.

    UserError if the file cannot be written, which leaves one that was there as it was; for parquet to a terminal.
    """
    if path is None and format == "parquet" and sys.stdout.isatty():
        raise UserError("Standard output is a terminal, which cannot show parquet.", "Name a file: --out FILE.parquet")
    if path is None:
        return write(batches, format, sys.stdout.buffer if format == "parquet" else text_out())
    try:
        with aside.writing(path) as part, _opened(part, format) as file:
            return write(batches, format, file)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}.",
            "Allowed is a file in a folder that exists and may be written to.",
        ) from error
