"""`ems rounds`: the rounds of an experiment whose points results decide."""

from __future__ import annotations

from typing import Annotated

import typer

from ems import lab as laboratory
from ems.base.console import out, print_json, working
from ems.cli.options import READ, Json, Stack

rounds_commands = typer.Typer()


@rounds_commands.command(rich_help_panel=READ, epilog="[bold]Examples[/]  ems rounds svd · ems rounds svd --replay")
def rounds(
    stack: Stack,
    replay: Annotated[
        bool, typer.Option("--replay", help="Propose each round again, from the rows that are stored, and compare.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the rounds that `job.propose` gave; with `--replay`, whether the same rows give the same points.

    Nothing is recorded or computed. Exit code 4 if a round comes out otherwise.
    """
    from ems.clusters import replaying
    from ems.databases import LONG
    from ems.lab.experiments import latest
    from ems.views import rounds as view

    lab = laboratory.find()
    experiment = latest(lab, stack, also=LONG)
    replaying.require_rounds(experiment)
    with lab.database() as connected, working("replaying") as say:
        again = list(replaying.replayed(lab, connected, experiment, say)) if replay else []
        described = view.objects(experiment, connected.rounds(experiment.id), again)
    if as_json:
        print_json(described)
    else:
        out.flow(view.page(experiment, described))
    raise typer.Exit(4 if view.differs(described) else 0)
