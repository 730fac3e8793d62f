"""`ems login`: the connection to a place that is reached by SSH, where a person logs in."""

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


def _host(stack: str) -> Host:
    """That of a place, or of the place of an experiment. UserError if it is not reached by SSH."""
    from ems import clusters
    from ems.lab.stacks import StackFiles
    from ems.stack.models import ClusterSpec, ExperimentSpec

    lab = laboratory.find()
    (name,) = lab.known([stack])
    files = StackFiles(lab, clusters.settings())
    described = files.spec(name)
    if isinstance(described, ExperimentSpec) and described.cluster.stack:
        return _host(described.cluster.stack)
    where = described if isinstance(described, ClusterSpec) else getattr(described, "cluster", None)
    if where is None or where.kind is None:
        raise UserError(f"{stack} describes no place.", "Name the stack of a place (ems:cluster), or of an experiment.")
    host = clusters.place(where.kind).host(where.model_dump(), f"ems login {stack}")
    if host is None:
        raise UserError(
            f"{stack} is of kind {where.kind}, which is not reached by SSH.", "There is nothing to log into."
        )
    return host
