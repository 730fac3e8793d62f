"""`ems results`, `ems failures`, `ems points`, `ems read`: commands that read what an experiment computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ems import lab as laboratory
from ems.base.console import out, print_json, say, text_out
from ems.base.errors import UserError
from ems.base.messages import counted
from ems.cli.options import READ, Json, Stack
from ems.databases import Experiment
from ems.databases.snippets import Language
from ems.lab import Lab

if TYPE_CHECKING:
    from ems.views.points import OpenPoints

reading = typer.Typer()


def looked_at(stack: str) -> Lab:
    """The lab here, with what waits at the place of a stack's runs."""
    from ems.clusters.fetching import glance

    lab = laboratory.find()
    glance(lab, [stack])
    return lab


def with_table(experiment: Experiment) -> Experiment:
    """The experiment; UserError if its stack file says that it has no rows."""
    if experiment.registration.results_table:
        return experiment
    stack = experiment.registration.stack
    raise UserError(
        f"{stack} has no rows: its stack file says `results: none`.", f"What its job left: ems status {stack}"
    )


@reading.command(
    rich_help_panel=READ,
    epilog="[bold]Examples[/]  ems results svd --where 'theta >= 1.5' --where 'm = 60' --out svd.parquet",
)
def results(
    stack: Stack,
    format: Annotated[
        str, typer.Option(help="csv, json or parquet; default: as the file's name ends, else a short table.")
    ] = "",
    to: Annotated[Path | None, typer.Option("--out", help="File to write; default: standard output.")] = None,
    columns: Annotated[str, typer.Option(help="Names with commas between, as `theta,sigma`; default: all.")] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="""Only such rows, as 'm = 60', 'label = "a b"', 'x is not null'; repeat it: all must hold."""
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show or export the rows of a stack's newest experiment, also while it runs."""
    from ems.lab.experiments import latest
    from ems.views import results as view
    from ems.views.imported import imported_from
    from ems.views.where import parse

    if as_json and format not in {"", "json"}:
        raise UserError(f"--json and --format {format} are two answers to one question.", "Give one of them.")
    wanted = view.format_of("json" if as_json else format, to)
    conditions = [parse(text) for text in where or []]
    names = [name.strip() for name in columns.split(",")] if columns else None
    lab = looked_at(stack)
    experiment = with_table(latest(lab, stack, also=["spec"]))
    with lab.database() as connected:
        if wanted:
            rows = view.export(connected.results(experiment.id, names, conditions), wanted, to)
            origin = imported_from(experiment.registration)
            say(counted(rows, "row") + (f" in {to}" if to else "") + view.missing(experiment) + origin)
            return
        first = connected.results(experiment.id, names, conditions, chunk_rows=view.MOST_ROWS)
        count = view.count_of(connected.results(experiment.id, [], conditions)) if conditions else ""
        out.print(
            view.table(first, experiment, view.Asked(where or (), columns), count, out.height if out.is_terminal else 0)
        )


@reading.command(rich_help_panel=READ, epilog="[bold]Examples[/]  ems failures svd · ems failures svd --json")
def failures(stack: Stack, as_json: Json = False) -> None:
    """Show why points of a sweep failed: each error once, with how many points and a few of them.

    `--json` has every point with its traceback; `ems up --retry` computes them again.
    """
    from ems.lab.experiments import latest
    from ems.views import failures as view

    lab = looked_at(stack)
    experiment = latest(lab, stack)
    with lab.database() as connected:
        if as_json:
            print_json([view.as_object(mark) for mark in connected.failures(experiment.id)])
        else:
            out.flow(view.page(connected.failures(experiment.id), experiment))


@reading.command(
    rich_help_panel=READ,
    epilog="[bold]Examples[/]  ems points svd · ems points svd --missing --csv > left.csv",
)
def points(
    stack: Stack,
    missing: Annotated[bool, typer.Option("--missing", help="Only those that a run would compute now.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on standard output, for scripts.")] = False,
) -> None:
    """Show which points of a sweep are not stored, with their parameters: of the stack's newest experiment, also while
    it runs; where there is none yet, all points of the stack file."""
    from ems.views import points as view

    if as_json and as_csv:
        raise UserError("--json and --csv are two answers to one question.", "Give one of them.")
    found, states = open_points(stack), view.chosen(missing=missing, failed=failed)
    if as_json:
        view.write_json(found.walk(states), text_out())
    elif as_csv:
        view.write_csv(found.walk(states), found.sweep.names, text_out())
    else:
        out.print(view.table(found, states))


def open_points(stack: str) -> OpenPoints:
    """The points of a stack that are not stored."""
    from ems import clusters
    from ems.lab.points import points_of
    from ems.lab.stacks import StackFiles
    from ems.views.points import OpenPoints

    lab = looked_at(stack)
    with lab.database() as connected:
        found = points_of(StackFiles(lab, clusters.settings()), connected, stack)
        known = connected.points(found.experiment.id) if found.experiment else ()
        return OpenPoints(stack, found.sweep, found.left_out, known)


@reading.command(rich_help_panel=READ, epilog="[bold]Examples[/]  ems read svd · ems read svd --snippet r > svd.R")
def read(
    stack: Stack,
    snippet: Annotated[Language, typer.Option(help="The language of the code.")] = "python",
) -> None:
    """Print code that reads a stack's newest rows from the lab's database without EMS, for notebooks and scripts."""
    from ems.lab.experiments import latest

    lab = laboratory.find()
    experiment = with_table(latest(lab, stack))
    with lab.database() as connected:
        typer.echo(connected.snippet(snippet, experiment, lab.root), nl=False)
