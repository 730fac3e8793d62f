"""`ems`: each command parses, calls one function, prints. Errors become exit codes here, and nowhere else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from ems.base.console import any_letter, err, show_error
from ems.base.errors import EmsError, UserError, refused
from ems.base.version import __version__
from ems.cli import usage
from ems.cli.cleaning import cleaning
from ems.cli.databases import database as database_commands
from ems.cli.environments import environments
from ems.cli.importing import importing
from ems.cli.making import making
from ems.cli.options import PANELS, START
from ems.cli.outputs import outputs_commands
from ems.cli.places import places
from ems.cli.reading import reading
from ems.cli.rounds import rounds_commands
from ems.cli.stacks import stacks_commands
from ems.cli.syncing import syncing

EXIT_CODES = """
[bold]Exit codes[/]
  0    done
  1    a fault of EMS itself, or of this machine (ems doctor)
  2    wrong input: an option, a name, a stack file
  3    code or environment cannot be reproduced as it stands
  4    the lab's database cannot do what was asked
  5    Pulumi is missing or failed, or something could not be released
  6    the experiment failed, was cancelled or expired
  7    somebody else is at work on it
  8    the lab's store of files cannot do what was asked
  9    a place is not reached now
  130  interrupted; 141: the reader of a pipe went away
"""


class Commands(TyperGroup):
    """Turns errors into messages and exit codes, and takes `--debug` anywhere on the line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ours = args[: args.index("pulumi")] if "pulumi" in args else args  # Pulumi has a --debug of its own
        rest = args[len(ours) :]
        debug = ["--debug"] if "--debug" in ours else []
        parsed: list[str] = super().parse_args(ctx, [*debug, *(word for word in ours if word != "--debug"), *rest])
        return parsed

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, in the order of the help: what a shell wants to know about them comes last."""
        return sorted(super().get_params(ctx), key=lambda each: each.name in {"install_completion", "show_completion"})

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The names in the order of the help: as one needs them."""
        by_name: Mapping[str, Any] = self.commands
        return sorted(by_name, key=lambda name: (PANELS.index(by_name[name].rich_help_panel), name == "pulumi"))

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except usage.Usage as error:
            if usage.is_help(error):
                raise
            show_error(usage.told(error))
        raise typer.Exit(UserError.exit_code)

    def _written(self, ctx: Any) -> Any:
        """Run the command; BrokenPipeError also where its last words, still buffered, have no reader."""
        try:
            found = super().invoke(ctx)
        except typer.Exit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return found

    def invoke(self, ctx: Any) -> Any:
        try:
            return self._written(ctx)
        except usage.Usage as error:
            if usage.is_help(error):
                raise
            show_error(usage.told(error))
            code = UserError.exit_code
        except EmsError as error:
            if ctx.params["debug"]:
                err.print_exception()
            show_error(error)
            code = error.exit_code
        except BrokenPipeError:  # as by `| head`; what is still buffered has no reader either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 141
        raise typer.Exit(code)


app = typer.Typer(
    name="ems",
    cls=Commands,
    help="Run computational experiments as Pulumi stacks: reviewable, reproducible, paid for, and gone when done.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(making)
app.add_typer(importing)
app.add_typer(stacks_commands)
app.add_typer(syncing)
app.add_typer(reading)
app.add_typer(outputs_commands)
app.add_typer(places)
app.add_typer(rounds_commands)
app.add_typer(cleaning)
app.add_typer(environments, name="env", rich_help_panel=START)
app.add_typer(database_commands, name="database", rich_help_panel=START)


def main() -> NoReturn:
    """Run the command line. What no command expected is a fault of this machine or of EMS: exit code 1."""
    # Each ends every command as Ctrl-C does, also where a shell started it in the background: Pulumi obeys them too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    any_letter()
    try:
        app(prog_name="ems")
    except Exception as error:
        if "--debug" in sys.argv:
            err.print_exception()
        show_error(_unexpected(error))
    sys.exit(EmsError.exit_code)


def _unexpected(error: Exception) -> EmsError:
    if isinstance(error, OSError) and error.filename:
        return refused(error)
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return EmsError(f"a fault of EMS itself: {text}", "Please report it, with what `--debug` shows.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ems {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error too. Works anywhere on the line.")
    ] = False,
) -> None: ...
