"""`ems outputs`: the files that a job left in EMS_OUTPUT_DIR, listed or brought from the lab's store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ems import lab as laboratory
from ems.base.console import out, print_json, say
from ems.cli.options import READ, Json, Stack

outputs_commands = typer.Typer()


@outputs_commands.command(
    rich_help_panel=READ, epilog="[bold]Examples[/]  ems outputs svd · ems outputs svd --to figures"
)
def outputs(
    stack: Stack,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to bring them into; it is made if need be.")] = None,
    as_json: Json = False,
) -> None:
    """List the files that a stack's job left in the folder of EMS_OUTPUT_DIR, or bring them from the lab's store.

    Of the newest experiment, also while it runs. Each point of a sweep has a folder of its own: point-7.
    """
    from ems.clusters.fetching import glance
    from ems.lab import outputs as stored
    from ems.lab.experiments import latest
    from ems.views import outputs as view

    lab = laboratory.find()
    glance(lab, [stack])
    experiment = latest(lab, stack, also=["spec"])
    points = stored.has_points(experiment.registration)
    found = list(stored.of_experiment(lab, experiment))
    brought = stored.fetch(lab, found, to, points=points) if to else []
    if as_json:
        paths = {id(target.output): str(target.path) for target in brought}
        print_json([view.as_object(each, paths.get(id(each))) for each in found])
    elif not found:
        say(f"{stack} has left no files in the folder of EMS_OUTPUT_DIR{'' if experiment.state.finished else ' yet'}.")
    elif to:
        say(f"{view.total(found)} in {to}")
    else:
        out.print(view.table(found, points=points))
        say(view.sums(found, experiment))
