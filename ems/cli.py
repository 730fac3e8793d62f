"""`ems`: each command parses, calls one function, prints. Errors become exit codes here, and nowhere else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ems import databases
from ems import lab as laboratory
from ems.errors import EmsError, UserError
from ems.lab import Lab

EXIT_CODES = """
Exit codes: 0 done · 1 a fault of EMS itself · 2 wrong input (an option, a stack file) · 3 code or environment cannot
be reproduced as it stands · 4 the database · 5 Pulumi · 6 the experiment failed, was cancelled or expired ·
7 somebody else is at work on it · 130 interrupted.
"""

app = typer.Typer(
    name="ems",
    help="Run computational experiments as Pulumi stacks: reviewable, reproducible, paid for, and gone when done.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
environments = typer.Typer(help="Lock, check and build pinned environments.", no_args_is_help=True)
app.add_typer(environments, name="env")

out = Console()
err = Console(stderr=True)

Stack = Annotated[str, typer.Argument(help="Name of a stack: stacks/Pulumi.NAME.yaml.")]
Stacks = Annotated[list[str] | None, typer.Argument(help="Names of stacks; default: all.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def main() -> NoReturn:
    """Run the command line; a person's mistake gives one message, `--debug` its traceback too."""
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"] if "pulumi" not in sys.argv[1:2] else sys.argv[1:]
    try:
        app(arguments, standalone_mode=True)
    except EmsError as error:
        if debug:
            err.print_exception()
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
    sys.exit(0)


def show_error(error: EmsError) -> None:
    err.print("error:", style="bold red", end=" ", highlight=False)
    err.print(error.message, markup=False, highlight=False, soft_wrap=True)
    if error.hint:
        err.print(error.hint, style="dim", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """A spinner with a line that changes; on a terminal only."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda line: progress.update(task, description=line)


@contextmanager
def database(lab: Lab) -> Iterator[databases.Database]:
    with closing(databases.connect(lab.database_url, lab.root)) as connected:
        yield connected


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Folder of the new lab; it must be empty or not exist.")],
    name: Annotated[str, typer.Option(help="Name of the lab; default: the folder's name.")] = "",
) -> None:
    """Make a lab: a git repository with a first experiment, ready for `ems up`."""
    from ems import scaffold

    made = scaffold.init(directory, name or directory.resolve().name)
    out.print(f"Made the lab [bold]{made.name}[/] in {made.root}. Next:")
    out.print(f"  cd {directory} && ems up", highlight=False)


@app.command()
def new(name: Annotated[str, typer.Argument(help="Name of the experiment, and of its stack.")]) -> None:
    """Add an experiment: a stack file, its code and a pinned environment to begin with."""
    from ems import scaffold

    lab = laboratory.find()
    for path in scaffold.new(lab, name):
        out.print(f"wrote {path.relative_to(lab.root)}", highlight=False)
    out.print(f"Edit them, then: git add -A && git commit -m 'Add {name}' && ems up {name}", highlight=False)


@app.command()
def check(stacks: Stacks = None, as_json: Json = False) -> None:
    """Validate stack files, environments, code state and references. Touches nothing."""
    from ems import preflight

    lab = laboratory.find()
    reports = [preflight.report(lab, stack) for stack in stacks or lab.stacks()]
    if as_json:
        print_json([report.as_object() for report in reports])
    for report in [] if as_json else reports:
        mark = "[red]✗[/]" if report.problems else "[green]✓[/]"
        out.print(f"{mark} [bold]{report.stack}[/] {report.summary}", highlight=False)
        for problem in report.problems:
            out.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
        for warning in report.warnings:
            out.print(f"  warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(max((report.exit_code for report in reports), default=0))


@app.command()
def schema() -> None:
    """Print the JSON Schema of stack files, for editors."""
    from ems import spec

    print_json(spec.json_schema())


@app.command()
def up(
    stacks: Stacks = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the run is under way.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Go on with a failed, cancelled or expired one.")] = False,
    as_json: Json = False,
) -> None:
    """Run experiments: register, provision, run, store, let go. Twice is once; interrupted, it goes on."""
    from ems import lifecycle
    from ems.runner import Pulumi

    lab = laboratory.find()
    with working("looking for Pulumi") as say:
        pulumi = Pulumi.of(lab, say)
    finished = []
    for stack in lifecycle.in_order(lab, stacks):
        experiment = lifecycle.up(pulumi, stack, err.print, detach=detach, retry=retry)
        finished += [experiment] if experiment else []
    show_status(finished, as_json)
    lifecycle.raise_if_failed(finished)


@app.command()
def stop(stack: Stack, as_json: Json = False) -> None:
    """Cancel a stack's run, from any machine that reaches the database. What was computed is stored."""
    from ems import lifecycle

    lab = laboratory.find()
    with working(f"stopping {stack}"):
        experiment = lifecycle.stop(lab, lifecycle.latest(lab, stack))
    show_status([experiment], as_json)


@app.command()
def status(stacks: Stacks = None, as_json: Json = False) -> None:
    """Show where the newest experiment of each stack stands."""
    from ems import lifecycle

    lab = laboratory.find()
    show_status(lifecycle.newest(lab, stacks), as_json)


def show_status(experiments: list[databases.Experiment], as_json: bool) -> None:
    from ems.views.status import status_object, status_table

    if as_json:
        print_json([status_object(experiment) for experiment in experiments])
    elif experiments:
        out.print(status_table(experiments))
        for experiment in experiments:
            if experiment.error:
                text = f"{experiment.registration.stack}: {experiment.error}"
                out.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


@app.command()
def logs(
    stack: Stack,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is finished.")] = False,
) -> None:
    """Print what the job of a stack's newest experiment wrote."""
    from ems import lifecycle
    from ems.views import logs as view

    lab = laboratory.find()
    experiment = lifecycle.latest(lab, stack)
    for text in view.read(lab, experiment, follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command()
def results(
    stack: Stack,
    format: Annotated[str, typer.Option(help="csv, json or parquet; default: a short table.")] = "",
    to: Annotated[Path | None, typer.Option("--out", help="File to write; default: standard output.")] = None,
) -> None:
    """Show or export the rows of a stack's newest experiment, also while it runs."""
    from ems import lifecycle
    from ems.views import results as view

    lab = laboratory.find()
    experiment = lifecycle.latest(lab, stack)
    with database(lab) as connected:
        batches = connected.results(experiment.id)
        if format or to:
            rows = view.export(batches, format or (to.suffix.lstrip(".") if to else ""), to)
            err.print(f"{rows:,} rows", highlight=False)
        else:
            out.print(view.table(batches, experiment))


@app.command()
def teardown(
    stacks: Stacks = None,
    everything: Annotated[bool, typer.Option("--all", help="All stacks of the lab.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be let go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Stop running experiments too.")] = False,
    as_json: Json = False,
) -> None:
    """Let go what finished experiments still hold, and certify that nothing is left that costs."""
    from ems import lifecycle
    from ems.runner import Pulumi
    from ems.views import teardown as view

    lab = laboratory.find()
    if not stacks and not everything:
        raise UserError("Which stacks?", "Name them, or say --all.")
    with working("surveying") as say:
        pulumi = Pulumi.of(lab, say)
        leftovers = lifecycle.survey(pulumi, stacks or lab.stacks())
    if not (dry_run or yes or as_json):
        out.print(view.table(leftovers))
        typer.confirm("Let go what finished experiments hold?", abort=True)
    if not dry_run:
        with working("letting go") as say:
            leftovers = lifecycle.teardown(pulumi, leftovers, force=force, progress=say)
    if as_json:
        print_json(view.as_object(leftovers))
    else:
        out.print(view.certificate(leftovers))
    raise typer.Exit(view.exit_code(leftovers, dry_run=dry_run))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check what EMS needs on this machine and in this lab, and how to mend it."""
    from ems.views import doctor as view

    findings = view.examine()
    if as_json:
        print_json([finding.as_object() for finding in findings])
    else:
        out.print(view.table(findings))
    raise typer.Exit(1 if any(not finding.ok for finding in findings) else 0)


@app.command(
    "pulumi", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def run_pulumi(context: typer.Context) -> None:
    """Run plain Pulumi with everything set: `ems pulumi preview -s digits`."""
    from ems.runner import Pulumi

    lab = laboratory.find()
    with working("looking for Pulumi") as say:
        prepared = Pulumi.of(lab, say)
    os.chdir(lab.root)
    program = str(prepared.folder / "pulumi")
    os.execve(program, ["pulumi", *context.args], prepared.environment({}))


EnvironmentName = Annotated[str, typer.Argument(help="Name of a folder in environments/.")]


@environments.command("lock")
def env_lock(
    name: EnvironmentName,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Take the newest versions allowed.")] = False,
) -> None:
    """Pin environments/NAME/requirements.in into requirements.txt, with hashes, for all platforms."""
    from ems import environment

    folder = environment.folder(laboratory.find().root, name)
    with working(f"locking {name}"):
        environment.lock(folder, upgrade)
    out.print(f"wrote {folder / 'requirements.txt'}", highlight=False)


@environments.command("check")
def env_check(name: EnvironmentName) -> None:
    """Check that a lock is fully pinned with hashes, and name libraries that only render."""
    from ems import environment

    findings = environment.check(environment.from_folder(environment.folder(laboratory.find().root, name)))
    for finding in (*findings.errors, *findings.warnings):
        out.print(str(finding), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2 if findings.errors else 0)


@environments.command("build")
def env_build(name: EnvironmentName) -> None:
    """Build an environment into the user's cache, once per lock, and print its folder."""
    from ems import environment

    pinned = environment.from_folder(environment.folder(laboratory.find().root, name))
    with working(f"building {name}") as say:
        folder = environment.build(pinned, say)
    typer.echo(folder)


if __name__ == "__main__":
    main()
