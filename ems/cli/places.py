"""`ems login`, `ems runner`: places that are reached by SSH, and those that nobody reaches from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ems import lab as laboratory
from ems.base.console import say
from ems.base.errors import UserError
from ems.cli.options import RUN, Stack

if TYPE_CHECKING:
    from ems.clusters.openssh import Host

places = typer.Typer()
SAID = {"new": "Logged in", "EMS's": "Logged in already", "yours": "Logged in already, by a connection of your own"}


@places.command(rich_help_panel=RUN, epilog="[bold]Examples[/]  ems login sherlock · ems login sherlock --close")
def login(
    stack: Stack,
    close: Annotated[bool, typer.Option("--close", help="Close the connection that EMS has opened.")] = False,
) -> None:
    """Connect to a place by SSH, as its password or second factor asks for a person. All commands then use that.

    It stays open after this command, until the host or the network ends it, or --close. A connection that you have
    opened yourself (ControlMaster in ~/.ssh/config) is found and used.
    """
    host = _host(stack)
    if close:
        say(f"{host.name}: {'closed' if host.log_out() else 'EMS has no connection there'}.")
    else:
        say(f"{SAID[host.log_in()]}: {host.name}.")


@places.command(rich_help_panel=RUN, epilog="[bold]Examples[/]  ems runner sherlock · ems runner sherlock --print")
def runner(
    stack: Stack,
    once: Annotated[bool, typer.Option("--once", help="Have the runs that there are now begin, and go.")] = False,
    print_lines: Annotated[
        bool, typer.Option("--print", help="Print the lines by which cron, or Slurm's scrontab, does that regularly.")
    ] = False,
) -> None:
    """At a place whose stack says `reach: runner`: take its runs from the lab's database, and have the place run them.

    Needs a clone of the lab's repository there, the database (its agent's role) and the repository's remote: nothing
    has to reach the place. Stays until Ctrl-C; runs go on without it.
    """
    from ems.clusters import runner as runners

    lab = laboratory.find()
    if print_lines:
        typer.echo(runners.crontab(lab, stack), nl=False)
        return
    runners.attend(lab, stack, say, once=once)


def _host(stack: str) -> Host:
    """That of a place, or of the place of an experiment. UserError if it is not reached by SSH."""
    from ems import clusters
    from ems.lab.stacks import StackFiles
    from ems.stack.models import ExperimentSpec

    lab = laboratory.find()
    (name,) = lab.known([stack])
    files = StackFiles(lab, clusters.settings())
    described = files.spec(name)
    if isinstance(described, ExperimentSpec) and described.cluster.stack:
        return _host(described.cluster.stack)
    host = clusters.host(described, name)
    if host is None:
        raise UserError(
            f"{name} describes no place that is reached by SSH.",
            "Name the stack of one (ems:cluster), or of an experiment there.",
        )
    return host
