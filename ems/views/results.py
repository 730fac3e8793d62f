"""An experiment's results: shown, or written out in flat memory."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from ems.base import aside
from ems.base.console import Text, text_out
from ems.base.errors import UserError
from ems.base.messages import counted
from ems.databases import Experiment
from ems.lab.line import failed_points
from ems.spool.batch import Batch, Column, Value
from ems.views.imported import imported_from

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS, MOST_COLUMNS, MOST_LETTERS = 20, 8, 200  # on a terminal
LEAST_ROWS, LINES_BESIDE = 5, 7
MOST_COUNTED = 100_000
DIGITS = (6, 9, 12, 15, 17)
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
            file.write(",".join(name if _PLAIN.fullmatch(name) else quoted(name) for name in header(batch)) + "\n")
        columns = [map(str, batch.points), map(str, batch.rows), *map(_csv_cells, batch.columns)]
        file.writelines(",".join(cells) + "\n" for cells in zip(*columns, strict=True))
        rows += len(batch)
    return rows


def _csv_cells(column: Column) -> list[str]:
    shown: Callable[[Any], str] = quoted if column.type == "text" else repr
    return ["" if value is None else shown(value) for value in column.values]


def quoted(text: str) -> str:
    """Text in quotes, as CSV has it."""
    return '"' + text.replace('"', '""') + '"'


def _write_json(batches: Iterable[Batch], file: IO[str]) -> int:
    """An array of objects, one a line. JSON has no infinities: they become the texts "inf" and "-inf"."""
    rows = 0
    for batch in batches:
        names = header(batch)
        for record in records(batch):
            file.write(",\n" if rows else "[\n")
            file.write(json.dumps(dict(zip(names, map(_jsonable, record), strict=True)), ensure_ascii=False))
            rows += 1
    file.write("\n]\n" if rows else "[\n]\n")
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
        for table in chain([first], tables):
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


@dataclass(frozen=True)
class Asked:
    """Which rows and columns somebody asked for, as they were written."""

    where: Sequence[str] = ()
    columns: str = ""

    def way(self, stack: str) -> str:
        """The command that gives all of them."""
        columns = ["--columns", self.columns] if self.columns else []
        conditions = [word for condition in self.where for word in ("--where", condition)]
        return shlex.join(["ems", "results", stack, *columns, *conditions, "--out", f"{stack}.csv"])


def table(
    batches: Iterable[Batch], experiment: Experiment, asked: Asked = Asked(), count: str = "", height: int = 0
) -> RenderableType:
    """The first rows and columns, for a terminal of `height` lines if it has any, and how to get all of them.

    `count`: how many rows there are, as it is to be shown; without it, all that the experiment has.
    """
    first, row = next(iter(batches), None), experiment.registration
    such = f" with {' and '.join(asked.where)}" if asked.where else ""
    if first is None and such:
        return Text(f"{row.stack}: no rows{such}{missing(experiment)}.")
    if first is None:
        yet = "" if experiment.state.finished else " yet"
        return Text(f"{row.stack}: no rows{yet}, its state is {experiment.state}{missing(experiment)}.")
    names, rows = header(first), list(islice(records(first), _fitting(height)))
    of_rows = _of(len(rows), count or f"{max(experiment.rows_stored, len(rows)):,}", "row")
    of_columns = _of(min(len(names), MOST_COLUMNS), f"{len(names):,}", "column")
    if asked.columns:  # nobody has counted the others
        of_columns = of_columns.replace("column", "chosen column")
    title = (
        f"{row.stack}: {of_rows}{such}, {of_columns} in {row.results_table}{missing(experiment)}{imported_from(row)}"
    )
    ways = [Text(f"All of them: {asked.way(row.stack)}", "dim")] if " of " in of_rows + of_columns else []
    return Group(Text(title), _grid(names, rows), *ways)


def _fitting(height: int) -> int:
    """So many rows that title, header and the way to all of them are seen, too."""
    return min(MOST_ROWS, max(height - LINES_BESIDE, LEAST_ROWS)) if height else MOST_ROWS


def _of(shown: int, there: str, noun: str) -> str:
    """As `1 row`, `3 rows` or `20 of 1,000 rows`."""
    return counted(shown, noun) if there == f"{shown:,}" else f"{shown:,} of {there} {noun}s"


def _grid(names: Sequence[str], rows: Sequence[tuple[Value, ...]]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = list(zip(*rows, strict=True))[:MOST_COLUMNS]
    for name in names[: len(columns)]:
        shown.add_column(Text(_short(name)), overflow="fold")
    for cells in zip(*map(_cells, columns), strict=True):
        shown.add_row(*cells)
    return shown


def _cells(values: Sequence[Value]) -> list[Text]:
    """Of one column. Floats have as many digits as tell them apart, 6 at least."""
    floats = {value for value in values if isinstance(value, float)}
    digits = next((few for few in DIGITS if len({f"{value:.{few}g}" for value in floats}) == len(floats)), DIGITS[-1])
    return [_cell(value, digits) for value in values]


def _cell(value: Value, digits: int) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, str):
        return Text(_short(value))
    return Text(f"{value:.{digits}g}" if isinstance(value, float) else str(value), justify="right")


def _short(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"


def count_of(batches: Iterable[Batch]) -> str:
    """How many rows there are; as it takes long to count more, `more than 100,000`."""
    rows = 0
    for batch in batches:
        rows += len(batch)
        if rows > MOST_COUNTED:
            return f"more than {MOST_COUNTED:,}"
    return f"{rows:,}"


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
    """Such as `; of 3,120 points 2 failed, 12 not computed yet`; "" where none is missing, and of a program."""
    total, failed = experiment.registration.points_total, failed_points(experiment)
    left = total - experiment.points_done - failed
    if total == 1 or not (failed or left > 0):
        return ""
    yet = "" if experiment.state.finished else " yet"
    parts = [f"{failed:,} failed" if failed else "", f"{left:,} not computed{yet}" if left > 0 else ""]
    return f"; of {total:,} points {', '.join(filter(None, parts))}"


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
