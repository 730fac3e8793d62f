"""`ems`: each command parses, calls one function, prints. Errors become exit codes here, and nowhere else."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperGroup

import ems
from ems import databases
from ems import lab as laboratory
from ems.cli_databases import database as database_commands
from ems.cli_environments import environments
from ems.cli_reading import reading
from ems.console import err, out, print_json, say, show_error, working
from ems.errors import EmsError, UserError

EXIT_CODES = """
[bold]Exit codes[/]
  0    done
  1    a fault of EMS itself, or of this machine (ems doctor)
  2    wrong input: an option, a name, a stack file
  3    code or environment cannot be reproduced as it stands
  4    the lab's database cannot do what was asked
  5    Pulumi is missing or failed, or something could not be let go
  6    the experiment failed, was cancelled or expired
  7    somebody else is at work on it
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

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
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
app.add_typer(environments, name="env")
app.add_typer(reading)
app.add_typer(database_commands, name="database")

Stack = Annotated[str, typer.Argument(help="Name of a stack: stacks/Pulumi.STACK.yaml.")]
Stacks = Annotated[list[str] | None, typer.Argument(help="Names of stacks; default: all.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]


def main() -> NoReturn:
    """Run the command line. What no command expected is a fault of EMS: one line says so, exit code 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends every command as Ctrl-C does
    try:
        app(prog_name="ems")
    except Exception as error:
        if "--debug" in sys.argv:
            err.print_exception()
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        show_error(EmsError(f"a fault of EMS itself: {text}", "Please report it, with what `--debug` shows."))
    sys.exit(EmsError.exit_code)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ems {ems.__version__}")
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


@app.command(epilog="[bold]Example[/]  ems init my-lab && cd my-lab && ems up")
def init(
    directory: Annotated[Path, typer.Argument(help="Folder of the new lab; it must be empty or not exist.")],
    name: Annotated[str, typer.Option(help="Name of the lab; default: the folder's name.")] = "",
) -> None:
    """Make a lab: a git repository with a first experiment, ready for `ems up`."""
    from ems import scaffold

    made = scaffold.init(directory, name)
    out.print(f"Made the lab [bold]{made.name}[/] in {escape(str(made.root))}. Next:", highlight=False, soft_wrap=True)
    out.print(f"  cd {shlex.quote(str(directory))} && ems up", markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="[bold]Example[/]  ems new dose-response")
def new(name: Annotated[str, typer.Argument(help="Name of the experiment, and of its stack.")]) -> None:
    """Add an experiment: a stack file, its code and a pinned environment to begin with."""
    from ems import scaffold

    lab = laboratory.find()
    for path in scaffold.new(lab, name):
        out.print(f"wrote {path.relative_to(lab.root)}", highlight=False)
    out.print("Edit them, then:", highlight=False)
    out.print(f"  git add -A && git commit -m 'Add {name}' && ems up {name}", highlight=False, soft_wrap=True)


@app.command(epilog="[bold]Examples[/]  ems check · ems check digits --json")
def check(stacks: Stacks = None, as_json: Json = False) -> None:
    """Validate stack files, environments, code state and references. Touches nothing.

    The exit code is the greatest of those that the faults have; warnings have none.
    """
    from ems import preflight
    from ems.views import check as view

    lab = laboratory.find()
    reports = [preflight.report(lab, stack) for stack in stacks or lab.some_stacks()]
    if as_json:
        print_json([view.as_object(report) for report in reports])
    else:
        out.print(view.page(reports), soft_wrap=True)
    raise typer.Exit(max(report.exit_code for report in reports))


@app.command(epilog="[bold]Example[/]  ems schema > .ems/stack.schema.json")
def schema() -> None:
    """Print the JSON Schema of stack files, for editors."""
    from ems import spec

    print_json(spec.json_schema())


@app.command(epilog="[bold]Examples[/]  ems up · ems up digits --detach · ems up digits --retry")
def up(
    stacks: Stacks = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the run is under way.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Go on with a failed, cancelled or expired one: compute what is missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run experiments: register, provision, run, store, let go. Twice is once; interrupted, it goes on."""
    from ems import lifecycle
    from ems.runner import Pulumi

    lab = laboratory.find()
    with working("looking for Pulumi") as progress:
        pulumi = Pulumi.of(lab, progress, display=sys.stderr.fileno() if as_json else None)
    finished = []
    for stack in lifecycle.in_order(lab, stacks or lab.some_stacks()):
        experiment = lifecycle.up(pulumi, stack, say, detach=detach, retry=retry)
        finished += [experiment] if experiment else []
    show_status(finished, as_json)
    lifecycle.raise_if_failed(finished)


@app.command(epilog="[bold]Example[/]  ems stop digits")
def stop(stack: Stack, as_json: Json = False) -> None:
    """Cancel a stack's run, from any machine that reaches the database. What was computed is stored."""
    from ems import lifecycle

    lab = laboratory.find()
    experiment = lifecycle.latest(lab, stack)
    if experiment.state.finished:
        say(f"Nothing to stop: {stack} has {experiment.state} already.")
    else:
        with working(f"stopping {stack}"):
            experiment = lifecycle.stop(lab, experiment)
        if not experiment.state.finished:
            say(f"{stack} has been asked to stop; it is still {experiment.state}. See: ems status {stack}")
    show_status([experiment], as_json)


@app.command(epilog="[bold]Examples[/]  ems status · ems status digits --json")
def status(stacks: Stacks = None, as_json: Json = False) -> None:
    """Show where the newest experiment of each stack stands."""
    from ems import lifecycle

    lab = laboratory.find()
    experiments = lifecycle.newest(lab, stacks)
    if not experiments:
        say("No experiment yet. Run what is described: ems up")
    show_status(experiments, as_json)


def show_status(experiments: list[databases.Experiment], as_json: bool) -> None:
    from ems.views.status import status_object, status_page

    if as_json:
        print_json([status_object(experiment) for experiment in experiments])
    elif experiments:
        out.print(status_page(experiments, out.width))


@app.command(epilog="[bold]Examples[/]  ems logs digits · ems logs digits -f")
def logs(
    stack: Stack,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is finished.")] = False,
) -> None:
    """Print what the job of a stack's newest experiment wrote."""
    from ems import lifecycle
    from ems.views import logs as view

    lab = laboratory.find()
    experiment = lifecycle.latest(lab, stack)
    for text in view.read(lab, experiment, say, follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command(epilog="[bold]Examples[/]  ems watch · ems watch svd")
def watch(stacks: Stacks = None) -> None:
    """Follow runs live until all are finished: progress, rate, time left, workers, failures, the logs' last lines.

    On a terminal it takes the whole screen; Ctrl-C leaves, and the runs go on. Otherwise it prints lines.
    While the database is away it says so and waits.
    """
    from ems import lifecycle
    from ems.views import watch as view
    from ems.views.patience import Patience, Say
    from ems.views.progress import Progress, looks

    lab = laboratory.find()
    if not lifecycle.newest(lab, stacks):
        say("No experiment yet. Run what is described: ems up")
        return

    def follow(say: Say) -> Iterator[list[Progress]]:
        patience = Patience(say)
        for experiments in lifecycle.follow(lab, stacks, patience):
            yield patience(partial(looks, lab, experiments))

    view.show(out, lab.name, follow, say)


@app.command(epilog="[bold]Examples[/]  ems teardown --all --dry-run · ems teardown digits --yes")
def teardown(
    stacks: Stacks = None,
    everything: Annotated[bool, typer.Option("--all", help="All stacks of the lab.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is held; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; --json never does.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Stop running experiments, too.")] = False,
    as_json: Json = False,
) -> None:
    """Let go what finished experiments still hold, and certify that nothing is left that costs.

    What runs is kept, unless --force stops it. Exit code 5 if something could not be let go.
    """
    from ems import lifecycle
    from ems.runner import Pulumi
    from ems.views import teardown as view

    lab = laboratory.find()
    if bool(stacks) == everything:
        raise UserError("Which stacks?", "Name them, or say --all.")
    asks = not (dry_run or yes or as_json)
    if asks and not sys.stdin.isatty():
        raise UserError("Nobody is there to be asked.", "Say --yes, or --dry-run to change nothing.")
    with working("surveying") as progress:
        pulumi = Pulumi.of(lab, progress)
        leftovers = lifecycle.survey(pulumi, lab.known(stacks) if stacks else lab.stacks())
    if asks and any(leftover.clusters for leftover in leftovers):
        out.print(view.table(leftovers))
        if not typer.confirm("Let go what finished experiments hold?"):
            raise typer.Exit
    if not dry_run:
        with working("letting go") as progress:
            leftovers = lifecycle.teardown(pulumi, leftovers, force=force, progress=progress)
    if as_json:
        print_json(view.as_object(leftovers))
    else:
        out.print(view.certificate(leftovers))
    raise typer.Exit(0 if dry_run else view.exit_code(leftovers))


@app.command(epilog="[bold]Example[/]  ems doctor")
def doctor(as_json: Json = False) -> None:
    """Check what EMS needs on this machine and in this lab, and how to mend it."""
    from ems import doctor as checks
    from ems.views import doctor as view

    findings = checks.examine()
    if as_json:
        print_json([view.as_object(finding) for finding in findings])
    else:
        out.print(view.page(findings), soft_wrap=True)
    raise typer.Exit(1 if any(not finding.ok for finding in findings) else 0)


@app.command(
    "pulumi",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="[bold]Examples[/]  ems pulumi preview --stack digits · ems pulumi up --help",
)
def run_pulumi(context: typer.Context) -> None:
    """Run plain Pulumi with the lab's engine, backend and passphrase set. Its own help: `ems pulumi help`."""
    from ems.runner import Pulumi

    lab = laboratory.find()
    with working("looking for Pulumi") as progress:
        prepared = Pulumi.of(lab, progress)
    os.chdir(lab.root)
    program = str(prepared.folder / "pulumi")
    os.execve(program, ["pulumi", *context.args], prepared.environment({}))


if __name__ == "__main__":
    main()
