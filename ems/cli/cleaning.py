"""`ems clean`: what jobs left unread beside their results is removed, once somebody says so."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ems import lab as laboratory
from ems.base.console import out, print_json, say
from ems.base.errors import UserError
from ems.cli.options import CLEAN_UP, Json, Stack

cleaning = typer.Typer()


@cleaning.command(rich_help_panel=CLEAN_UP, epilog="[bold]Examples[/]  ems clean pi --dry-run · ems clean pi --yes")
def clean(
    stack: Stack,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is; remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; --json never does.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the files that a stack's jobs left unread beside their results. Rows, logs and results files stay.

    It looks at all experiments of the stack, on this machine: plots, files that nobody declared, and, of a run that is
    over, the checkpoint from which the next one would go on.
    """
    from ems.lab import left
    from ems.views import left as view

    lab = laboratory.find()
    found = left.of_stack(lab, stack)
    asks = not (dry_run or yes or as_json)
    if asks and found and not sys.stdin.isatty():
        raise UserError("Nobody is there to be asked.", "Say --yes, or --dry-run to change nothing.")
    if not found and not as_json:
        say(f"Nothing was left by {stack}.")
        return
    if asks:
        out.print(view.table(found, removed=False))
        if not typer.confirm(f"Remove {view.sums(found)}?"):
            raise typer.Exit
    if not dry_run:
        left.remove(lab, found)
    if as_json:
        print_json([view.as_object(each, removed=not dry_run) for each in found])
        return
    if not asks:
        out.print(view.table(found, removed=not dry_run))
    say(f"{view.sums(found)}: {'nothing was changed' if dry_run else 'removed'}.")
