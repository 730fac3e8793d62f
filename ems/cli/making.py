"""`ems init`, `new`, `schema`, `doctor`, `pulumi`: making a lab, and the tools around it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ems import lab as laboratory
from ems.base.console import Text, out, print_json, working
from ems.cli.options import RUN, START, Json

making = typer.Typer()


@making.command(rich_help_panel=START, epilog="[bold]Example[/]  ems init my-lab && cd my-lab && ems up")
def init(
    directory: Annotated[Path, typer.Argument(help="Folder of the new lab; it must be empty or not exist.")],
    name: Annotated[str, typer.Option(help="Name of the lab; default: the folder's name.")] = "",
) -> None:
    """Make a lab: a git repository with a first experiment, ready for `ems up`."""
    from ems.cli import scaffold

    made = scaffold.init(directory, name)
    out.print(Text.assemble("Made the lab ", (made.name, "bold"), f" in {made.root}. Next:"), soft_wrap=True)
    out.print(f"  cd {shlex.quote(str(directory))} && ems up", soft_wrap=True)


@making.command(rich_help_panel=START, epilog="[bold]Example[/]  ems new dose-response")
def new(name: Annotated[str, typer.Argument(help="Name of the experiment, and of its stack.")]) -> None:
    """Add an experiment: a stack file, its code and a pinned environment to begin with."""
    from ems.cli import scaffold

    lab = laboratory.find()
    for path in scaffold.new(lab, name):
        out.print(f"wrote {path.relative_to(lab.root)}")
    out.print("Edit them, then:")
    out.print(f"  git add -A && git commit -m 'Add {name}' && ems up {name}", soft_wrap=True)


@making.command(rich_help_panel=START, epilog="[bold]Example[/]  ems schema > .ems/stack.schema.json")
def schema() -> None:
    """Print the JSON Schema of stack files, for editors."""
    from ems import clusters
    from ems.stack.schema import json_schema

    print_json(json_schema(clusters.settings()))


@making.command(rich_help_panel=START, epilog="[bold]Example[/]  ems doctor")
def doctor(as_json: Json = False) -> None:
    """Check what EMS needs on this machine and in this lab, and how to fix it."""
    from ems.engine import doctor as checks
    from ems.views import doctor as view

    findings = checks.examine()
    if as_json:
        print_json([view.as_object(finding) for finding in findings])
    else:
        out.flow(view.page(findings))
    raise typer.Exit(1 if any(not finding.ok for finding in findings) else 0)


@making.command(
    "pulumi",
    rich_help_panel=RUN,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="[bold]Examples[/]  ems pulumi preview --stack digits · ems pulumi up --help",
)
def run_pulumi(context: typer.Context) -> None:
    """Run plain Pulumi with the lab's engine, backend and passphrase set. Its own help: `ems pulumi help`."""
    from ems.engine.runner import Pulumi

    lab = laboratory.find()
    with working("looking for Pulumi") as step:
        prepared = Pulumi.of(lab, step)
        program = str(prepared.folder / "pulumi")
    os.chdir(lab.root)
    os.execve(program, ["pulumi", *context.args], prepared.environment({}))
