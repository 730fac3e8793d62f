"""Where imported rows come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, TypedDict

from rich.console import Group, RenderableType
from rich.table import Table

from ems.base.console import Text
from ems.base.messages import counted, plain, some
from ems.databases import UNKNOWN, Registration
from ems.importing import record
from ems.importing.record import Brought, Imported

MOST_COLUMNS = 40


class ImportedObject(TypedDict):
    """Where imported rows come from. Texts that nobody has said are `unknown`, the title empty."""

    kind: Annotated[str, "Kind of source: `csv`, `jsonl`, `parquet`, `sqlite`, `postgresql` or `bigquery`."]
    source: Annotated[str, "Where it was: a path, from the lab's folder if it lies in it, or a URL."]
    table: Annotated[str, "Name of the table there; empty for a file."]
    content: Annotated[str, "What `sha256` is of: the `file`, or the `rows` of a table."]
    sha256: Annotated[str, "SHA-256 of the content, 64 hexadecimal digits."]
    rows: Annotated[int, "How many rows the source has."]
    columns: Annotated[dict[str, str], "Type of each column, as stored: `int64`, `float64`, `text` or `bool`."]
    parameters: Annotated[list[str], "Columns that were said to be parameters; they come first."]
    left_out: Annotated[list[str], "Columns without any value or type, which are not stored."]
    read_at: Annotated[str, "When the source was read, ISO 8601 in UTC."]
    commit: Annotated[str, "Commit of the code that made the rows."]
    project: Annotated[str, "A project of the lab."]
    experimenter: Annotated[str, "Who made them: an experimenter of the lab."]
    funding: Annotated[str, "Who paid: a funding account of the lab."]
    title: Annotated[str, "What people read."]
    date: Annotated[str, "When they were made, as far as it is known."]
    delimiter: Annotated[str, "The sign between cells, if one was said."]
    types: Annotated[dict[str, str], "Types of columns that were said, by the source's names."]
    renamed: Annotated[dict[str, str], "New names of columns, by the source's names."]


class BroughtObject(TypedDict):
    """What `ems import` has done, or would do."""

    done: Annotated[str, "`imported`, `already imported`, or with `--dry-run`: `planned`."]
    stack: Annotated[str, "Name that the experiment has."]
    experiment_id: Annotated[str, "Id of the experiment, a UUID."]
    results_table: Annotated[str, "Table of the lab's database that has the rows."]
    unread: Annotated[list[str], "What lies in a folder beside the files that were read."]
    imported: Annotated[ImportedObject, "Where the rows come from."]


def imported_object(registration: Registration) -> ImportedObject | None:
    """The shape of `imported` in `ems status --json`; None of what was not imported."""
    found = record.read(registration)
    return None if found is None else _object(found)


def _object(imported: Imported) -> ImportedObject:
    values = asdict(imported)
    return {**values, "parameters": [*imported.parameters], "left_out": [*imported.left_out]}  # type: ignore[typeddict-item]


def as_object(brought: Brought) -> BroughtObject:
    """The shape of `ems import --json`."""
    row = brought.registration
    return {
        "done": brought.done,
        "stack": row.stack,
        "experiment_id": row.id,
        "results_table": row.results_table,
        "unread": [*brought.unread],
        "imported": _object(brought.imported),
    }


def imported_from(registration: Registration) -> str:
    """Such as `; imported from results.csv`; "" of what was not imported."""
    found = record.read(registration)
    return f"; imported from {found.source}" if found else ""


def origin_of(registration: Registration) -> Text | None:
    """What is known of imported rows, in some lines; None of what was not imported."""
    found = record.read(registration)
    return None if found is None else Text("\n".join(_known(found)), "dim")


def _known(imported: Imported) -> list[str]:
    title = [imported.title] if imported.title else []
    said = ("commit", "date", "experimenter", "project", "funding")
    return [
        *title,
        f"imported {imported.line()}",
        f"read at {imported.read_at}",
        " · ".join(f"{name} {getattr(imported, name)}" for name in said),
    ]


def page(brought: Brought, remembered: str = "") -> RenderableType:
    """What was done, and the next command; `remembered`: how to import it, of a plan."""
    imported, row = brought.imported, brought.registration
    lines = [f"{imported.line()}; {counted(len(imported.columns), 'column')}", *_remarks(brought)]
    if brought.done == "planned":
        first = Text.assemble("Would import ", (row.stack, "bold"), f" into results table {row.results_table}:")
        return Group(
            first, *map(Text, lines), _columns(imported), Text(f"Nothing was changed. Do it: {remembered}", "dim")
        )
    again = " already, nothing was stored" if brought.done != "imported" else ""
    first = Text.assemble(("✓ ", "green"), (row.stack, "bold"), f" imported{again}: {lines[0]}")
    return Group(first, *map(Text, lines[1:]), Text(f"Its rows: ems results {row.stack}", "dim"))


def _remarks(brought: Brought) -> Sequence[str]:
    imported = brought.imported
    remarks = []
    if imported.left_out:
        remarks.append(f"Without any value, so left out: {some([*map(plain, imported.left_out)])}")
    if brought.unread:
        remarks.append(f"Not read: {some([*map(plain, brought.unread)])}")
    said = ("commit", "date", "experimenter", "project", "funding")
    if unknown := [name for name in said if getattr(imported, name) == UNKNOWN]:
        options = " ".join(f"--{name}" for name in unknown)
        remarks.append(f"Unknown: {', '.join(unknown)}. Whoever knows more repeats the command with {options}.")
    return remarks


def _columns(imported: Imported) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("column", "type", ""):
        shown.add_column(name, overflow="fold")
    for name, type in [*imported.columns.items()][:MOST_COLUMNS]:
        shown.add_row(Text(name), type, "parameter" if name in imported.parameters else "")
    if len(imported.columns) > MOST_COLUMNS:
        shown.add_row(Text(f"… and {len(imported.columns) - MOST_COLUMNS:,} more"), "", "")
    return shown
