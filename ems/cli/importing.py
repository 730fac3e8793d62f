"""`ems import`: a table that the lab has becomes a finished experiment."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from ems import lab as laboratory
from ems.base.console import measuring, out, print_json, say
from ems.base.errors import UserError
from ems.base.messages import nearest, quoted
from ems.cli.options import START, Json
from ems.spool.batch import ColumnType
from ems.spool.kinds import DECLARED

importing = typer.Typer()

SOURCE = (
    "A file (CSV, JSON-lines, Parquet, SQLite), a folder of such files, or the URL of a database: "
    "postgresql://HOST/DATABASE, bigquery://PROJECT/DATASET."
)
SIGN = "Sign between cells: tab, comma, semicolon, pipe, space, or the sign itself."
Source = Annotated[str, typer.Argument(help=SOURCE)]
Name = Annotated[str, typer.Option("--as", metavar="NAME", help="Name that the experiment is to have.")]
Table = Annotated[str, typer.Option(help="Table of the source, if that is a database.")]
Into = Annotated[str, typer.Option(metavar="TABLE", help="Results table; default: the name in small letters.")]
Parameters = Annotated[
    str, typer.Option(metavar="NAMES", help="Columns that are parameters, as `m,k`: they come first.")
]
Delimiter = Annotated[str, typer.Option(metavar="SIGN", help=SIGN)]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="COLUMN=TYPE", help="text, integer, float or boolean, as `zip=text`; repeatable."),
]
Renames = Annotated[
    list[str] | None, typer.Option("--rename", metavar="OLD=NEW", help="Give a column another name; repeatable.")
]
Commit = Annotated[str, typer.Option(metavar="HASH", help="Commit of the code that made the rows.")]
Project = Annotated[str, typer.Option(metavar="ID", help="A project of the lab.")]
Experimenter = Annotated[str, typer.Option(metavar="ID", help="Who made the rows: an experimenter of the lab.")]
Funding = Annotated[str, typer.Option(metavar="ID", help="Who paid: a funding account of the lab.")]
Title = Annotated[str, typer.Option(metavar="TEXT", help="What people read.")]
Date = Annotated[str, typer.Option(metavar="WHEN", help="When the rows were made, as 2024 or 2024-03-31.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show columns, types and rows; change nothing.")]


@importing.command(
    "import",
    rich_help_panel=START,
    epilog="[bold]Examples[/]  ems import runs.csv --as phase --parameters m,k · ems import old.db --table t --as old",
)
def import_table(
    source: Source,
    stack: Name,
    table: Table = "",
    into: Into = "",
    parameters: Parameters = "",
    delimiter: Delimiter = "",
    types: Types = None,
    renames: Renames = None,
    commit: Commit = "",
    project: Project = "",
    experimenter: Experimenter = "",
    funding: Funding = "",
    title: Title = "",
    date: Date = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring a table from elsewhere into the lab, as a finished experiment that is told as imported.

    Twice is once; interrupted, it goes on. What nobody says of the rows is recorded as unknown.
    """
    from ems.importing import bringing, files
    from ems.importing.record import Said
    from ems.importing.source import Reading
    from ems.views import imported as view

    sign = files.sign_of(delimiter) if delimiter else ""
    reading = Reading(table, sign, _types(_pairs("--type", types)), _pairs("--rename", renames))
    first = tuple(name.strip() for name in parameters.split(",")) if parameters else ()
    said = Said(commit, project, experimenter, funding, title, date)
    wanted = bringing.Wanted(source, stack, into, first, reading, said)
    brought = bringing.bring(laboratory.find(), wanted, measuring, say, dry_run=dry_run)
    if as_json:
        print_json(view.as_object(brought))
    else:
        out.print(view.page(brought, shlex.join(["ems", *(word for word in sys.argv[1:] if word != "--dry-run")])))


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """`NAME=VALUE`, of which the name may have `=` in it."""
    pairs = [(text, *text.rpartition("=")) for text in given or []]
    for text, name, _, value in pairs:
        if not (name and value):
            raise UserError(f"{option} is {quoted(text)}: that is not a pair.", f"Write {option} 'COLUMN=…'.")
    return {name: value for _, name, _, value in pairs}


def _types(words: dict[str, str]) -> dict[str, ColumnType]:
    for name, word in words.items():
        if word not in DECLARED:
            raise UserError(f"--type of {quoted(name)} is {quoted(word)}: {nearest(word, DECLARED)}.")
    return {name: DECLARED[word] for name, word in words.items()}
