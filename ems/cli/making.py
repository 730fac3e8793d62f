"""`ems init`, `new`, `schema`, `doctor`, `pulumi`: making a lab, and the tools around it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ems import lab as laboratory
from ems.base.console import Text, out, print_json, working
from ems.base.errors import UserError
from ems.cli.options import RUN, START, Json

if TYPE_CHECKING:
    from ems.cli.adopting import Plan

making = typer.Typer()


@making.command(
    rich_help_panel=START, epilog="[bold]Examples[/]  ems init my-lab && cd my-lab && ems up · ems init . --yes"
)
def init(
    directory: Annotated[
        Path, typer.Argument(help="Folder of the lab: a new one, or one with your code, in a repository or not.")
    ] = Path(),
    name: Annotated[str, typer.Option(help="Name of the lab; default: the folder's name.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Add what is listed without asking.")] = False,
) -> None:
    """Make a lab: a new repository with a first experiment; or what an existing one lacks, listed first.

    To a repository, or a folder in one, it adds files of its own and lines of .gitignore; it changes and commits
    nothing else, and may be run again.
    """
    from ems.cli import adopting, scaffold

    root = directory.expanduser().resolve()
    if not adopting.is_new(root):
        _adopt(adopting.plan(root, name), directory, yes)
        return
    made = scaffold.init(directory, name)
    out.print(Text.assemble("Made the lab ", (made.name, "bold"), f" in {made.root}. Next:"), soft_wrap=True)
    out.print(f"  cd {shlex.quote(str(directory))} && ems up", soft_wrap=True)


def _adopt(plan: Plan, directory: Path, yes: bool) -> None:
    from ems.cli import adopting

    if plan.there:
        out.flow(f"There already: {', '.join(plan.there)}")
    if plan.is_done:
        out.flow(f"{plan.root} is a lab, and nothing is missing.")
        return
    out.flow(f"To make {plan.root} a lab, this would be added:")
    for line in plan.lines():
        out.print(f"  {line}", soft_wrap=True)
    for note in plan.notes:
        out.flow(note)
    if not yes and not sys.stdin.isatty():
        raise UserError("Nobody is there to be asked, so nothing was added.", "Say --yes.")
    if not yes and not typer.confirm("Add it?"):
        raise typer.Exit
    with working("locking the environment" if plan.lock else "adding"):
        made = adopting.carry_out(plan)
    out.print(Text.assemble("Made the lab ", (made.name, "bold"), ". Nothing is committed. Next:"), soft_wrap=True)
    step = "" if plan.root == Path.cwd() else f"cd {shlex.quote(str(directory))} && "
    out.print(f'  {step}ems new NAME --command "python PROGRAM"', soft_wrap=True)
    out.print("  git add -A . && git commit -m 'Add a lab and its first experiment'", soft_wrap=True)
    out.print("  ems up NAME", soft_wrap=True)


@making.command(
    rich_help_panel=START,
    epilog="[bold]Examples[/]  ems new dose-response · ems new fit --command 'python train.py --lr 0.1'"
    " · ems new walk --function walks:distance",
)
def new(
    name: Annotated[str, typer.Argument(help="Name of the experiment, and of its stack.")],
    command: Annotated[
        str, typer.Option("--command", help="A program that exists, as it is typed in the lab's folder.")
    ] = "",
    function: Annotated[
        str, typer.Option("--function", help="A Python function that exists, as module:name; its parameters are read.")
    ] = "",
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A JSON file with table_name and params or multi_res, of the first EMS."),
    ] = None,
) -> None:
    """Add an experiment: a stack file, and its code and a pinned environment to begin with where there are none."""
    from ems.cli import new_stack as stack
    from ems.cli import scaffold
    from ems.lab import imports

    lab = laboratory.find()
    if command and (function or source):
        raise UserError("--command is for a program, --function and --from are for a function.", "Say one of them.")
    imports.refuse_new(lab, name)
    if command:
        written = stack.of_command(lab, name, command)
    elif source:
        written = stack.of_file(lab, name, source, function)
    elif function:
        written = stack.of_function(lab, name, function)
    else:
        written = stack.Written(tuple(scaffold.new(lab, name, stack.lock_lines(lab.root))), ())
    for path in written.paths:
        out.print(f"wrote {path.relative_to(lab.root)}")
    for note in written.notes:
        out.flow(note)
    out.print("Edit them, then:" if len(written.paths) > 1 else "Edit it, then:")
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
