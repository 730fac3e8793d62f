"""`ems sync`: rows of runs that do not reach the lab's database."""

from __future__ import annotations

import typer

from ems import lab as laboratory
from ems.base.console import out, print_json, say, working
from ems.cli.options import LOOK, Json, Stacks

syncing = typer.Typer()


@syncing.command(rich_help_panel=LOOK, epilog="[bold]Examples[/]  ems sync · ems sync digits --json")
def sync(stacks: Stacks = None, as_json: Json = False) -> None:
    """Fetch the rows that runs keep at a place which does not reach the lab's database, and store them here.

    Of all stacks whose runs are not finished, or of those named. `ems up` and `ems watch` do so while they watch.
    Exit code 9 if a place is not reached: the run goes on there, and nothing is lost.
    """
    from ems.clusters import fetching
    from ems.views import synced as view

    lab = laboratory.find()
    with working("fetching") as step:
        found = list(fetching.sync(lab, stacks, step))
    if as_json:
        print_json([view.as_object(each) for each in found])
    elif found:
        out.flow(view.page(found))
    else:
        say("Nothing to fetch: no run keeps rows at its place.")
    raise typer.Exit(max((each.error.exit_code for each in found if each.error), default=0))
