"""`ems check`, `up`, `stop`, `status`, `logs`, `watch`, `teardown`: what is done to stacks and their runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ems import databases
from ems import lab as laboratory
from ems.base.console import counting, err, out, print_json, say, text_out, working
from ems.base.errors import UserError
from ems.base.messages import counted
from ems.cli.options import CLEAN_UP, LOOK, RUN, START, Json, Stack, Stacks
from ems.lab import Lab
from ems.lab import experiments as recorded

if TYPE_CHECKING:
    from ems.engine.teardown import Leftover
    from ems.lab.stacks import StackFiles

stacks_commands = typer.Typer()
Sample = Annotated[
    str | None,
    typer.Option(
        metavar="SAMPLE",
        help="Compute a random sample of a sweep's points first, as 1% or 200, and show what the rest would take; "
        "without it, the rest is computed.",
    ),
]
ON_TERMINAL = 50  # experiments, unless more are asked for


@stacks_commands.command(rich_help_panel=START, epilog="[bold]Examples[/]  ems check · ems check digits --json")
def check(stacks: Stacks = None, as_json: Json = False) -> None:
    """Validate stack files, environments, code state and references. Touches nothing.

    The exit code is the greatest of those that the faults have; warnings have none.
    """
    from ems import clusters
    from ems.engine import preflight
    from ems.lab.stacks import StackFiles
    from ems.views import check as view

    files = StackFiles(laboratory.find(), clusters.settings())
    names = stacks or files.lab.some_stacks()
    with files.lab.one_database(), counting("checking", names) as each:
        reports = [preflight.report(files, stack) for stack in each]
    reports += [] if stacks else preflight.strays(files.lab)
    if as_json:
        print_json([view.as_object(report) for report in reports])
    else:
        out.flow(view.page(reports))
    raise typer.Exit(max(report.exit_code for report in reports))


@stacks_commands.command(
    rich_help_panel=RUN,
    epilog="[bold]Examples[/]  ems up · ems up digits --detach · ems up digits --retry · ems up svd --pilot 1%",
)
def up(
    stacks: Stacks = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the run is under way.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Go on with a failed, cancelled or expired one: compute what is missing.")
    ] = False,
    pilot: Sample = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask Pulumi also where nothing has to be done.")] = False,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="How many experiments go on at a time.")] = 2,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all that Pulumi shows.")] = False,
    as_json: Json = False,
) -> None:
    """Run experiments: register, provision, run, store, release. Twice is once; interrupted, it goes on."""
    from ems import clusters
    from ems.engine import lifecycle, together
    from ems.engine.pilot import Pilot
    from ems.engine.runner import Pulumi
    from ems.lab.stacks import StackFiles
    from ems.views.board import Board

    sample = None if pilot is None else Pilot.of(pilot)
    lab = laboratory.find()
    files = StackFiles(lab, clusters.settings())
    wanted, imported = _to_run(lab, stacks or [])
    if not wanted:
        show_ended(files, imported, as_json)
        return
    pulumi = Pulumi.of(lab, say, display=sys.stderr.fileno() if as_json else None)
    names = lifecycle.in_order(files, lifecycle.with_lab(pulumi, files, wanted, say))
    wishes = lifecycle.Wishes(detach, retry, refresh, verbose, sample)
    board = Board(err if as_json else out, lab, len(names), drawn=not verbose)
    with board.shown():
        experiments = together.up_all(pulumi, files, names, board, wishes, at_once)
    show_ended(files, experiments, as_json, piloted=sample is not None)
    lifecycle.raise_if_failed(experiments)


def _to_run(lab: Lab, stacks: list[str]) -> tuple[list[str], list[databases.Experiment]]:
    """Those of `stacks`, or of all, that have something to run, and the experiments of those that were imported."""
    from ems.engine import lifecycle

    imported = lifecycle.imported(lab, stacks)
    for each in imported:
        say(f"{each.registration.stack} was imported: there is nothing to run.")
    known = {each.registration.stack for each in imported}
    return [stack for stack in stacks or lab.some_stacks() if stack not in known], imported


def show_ended(
    files: StackFiles, experiments: Sequence[databases.Experiment], as_json: bool, *, piloted: bool = False
) -> None:
    """Print what `ems up` has done, beyond the lines of its board: as JSON, or of pilots what they found out."""
    from ems.views.status import status_object

    if piloted:
        _show_pilots(files, experiments, as_json)
    elif as_json:
        print_json([status_object(experiment) for experiment in experiments])


def _show_pilots(files: StackFiles, experiments: Sequence[databases.Experiment], as_json: bool) -> None:
    from ems.views import pilot as view

    found = [view.as_object(each, view.workplaces(each, files.places())) for each in experiments]
    if as_json:
        print_json(found)
    else:
        for one, experiment in zip(found, experiments, strict=True):
            out.flow(view.page(one, experiment))


@stacks_commands.command(rich_help_panel=RUN, epilog="[bold]Example[/]  ems stop digits")
def stop(
    stack: Stack,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Its place is gone for good, with rows that were not fetched from there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Cancel a stack's run, from any machine that reaches the database. What was computed is stored."""
    from ems.engine import lifecycle

    lab = laboratory.find()
    experiment = recorded.latest(lab, stack, also=databases.LONG if as_json else ["files_left"])
    if experiment.state.finished:
        say(f"Nothing to stop: {stack} has {experiment.state} already.")
    else:
        with working(f"stopping {stack}"):
            experiment = lifecycle.stop(lab, experiment, give_up=give_up)
        if not experiment.state.finished:
            say(f"{stack} has been asked to stop; it is still {experiment.state}. See: ems status {stack}")
    show_status(lab, [experiment], as_json)


@stacks_commands.command(
    rich_help_panel=LOOK,
    epilog="[bold]Examples[/]  ems status · ems status --mine --since 2d · ems status --state failed --json",
)
def status(
    stacks: Stacks = None,
    states: Annotated[
        list[databases.State] | None, typer.Option("--state", help="Only those in this state; may be repeated.")
    ] = None,
    project: Annotated[str, typer.Option(metavar="ID", help="Only those of this project.")] = "",
    experimenter: Annotated[str, typer.Option(metavar="ID", help="Only those of this experimenter.")] = "",
    mine: Annotated[bool, typer.Option("--mine", help="Only yours, by git's user.email.")] = False,
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="Only what changed since: 30min, 12h, 2d, 3w, or a date.")
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many; default: 50 on a terminal.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show where the newest experiment of each stack stands: first what is under way, then what changed last."""
    from ems.clusters import fetching
    from ems.lab import person, selection

    lab = laboratory.find()
    if mine and experimenter:
        raise UserError("--mine and --experimenter are two answers to one question.", "Give one of them.")
    chosen = selection.Selection(
        states=states or (),
        project=project,
        experimenter=person.experimenter(lab) if mine else experimenter,
        since=selection.since(since, datetime.now(UTC)) if since else None,
    )
    fetching.glance(lab, stacks)
    shown: list[databases.Long] = ["spec", "files_left"]
    newest = recorded.newest(lab, stacks, also=[*shown, "platform"] if as_json else shown if stacks else [], remark=say)
    found = chosen.of(newest)
    if not newest:
        say("No experiment yet. Run what is described: ems up")
    elif not found:
        say(f"Of {counted(len(newest), 'experiment')} none is such. All of them: ems status")
    most = limit or (ON_TERMINAL if out.is_terminal and not as_json else len(found))
    show_status(lab, found[:most], as_json, total=len(found))


def show_status(lab: Lab, experiments: Sequence[databases.Experiment], as_json: bool, total: int = 0) -> None:
    """Print experiments as JSON or as a table; without any, an empty JSON list or nothing."""
    from ems.engine.converged import declaring
    from ems.engine.runner import Pulumi
    from ems.views.status import status_object, status_page

    held = declaring(Pulumi(lab), experiments)
    if as_json:
        print_json([status_object(each, declares=each.registration.stack in held) for each in experiments])
    elif experiments:
        waits = _waits(lab, experiments[0]) if len(experiments) == 1 else ""
        out.print(status_page(experiments, out.width, total=total, declaring=held, waits=waits))


def _waits(lab: Lab, experiment: databases.Experiment) -> str:
    """Why it does not go on, as far as its place knows."""
    if experiment.state.finished:
        return ""
    from ems import clusters

    live = clusters.of(lab, experiment).live(lab, experiment)
    return live.waits if live else ""


@stacks_commands.command(rich_help_panel=LOOK, epilog="[bold]Examples[/]  ems logs digits · ems logs digits -f")
def logs(
    stack: Stack,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is finished.")] = False,
) -> None:
    """Print what the job of a stack's newest experiment wrote."""
    from ems.views import logs as view

    lab = laboratory.find()
    experiment = recorded.latest(lab, stack, also=["log_tail"])
    file = text_out()
    for text in view.read(lab, experiment, say, follow=follow):
        file.write(text)
        file.flush()


@stacks_commands.command(rich_help_panel=LOOK, epilog="[bold]Examples[/]  ems watch · ems watch svd")
def watch(stacks: Stacks = None) -> None:
    """Follow runs live until all are finished: progress, rate, time left, workers, failures, the logs' last lines.

    On a terminal it takes the whole screen; Ctrl-C leaves, and the runs go on. Otherwise it prints lines.
    While the database is away it says so and waits.
    """
    from ems.base.messages import Say
    from ems.lab.patience import Patience
    from ems.views import watch as view
    from ems.views.progress import Looking, Progress

    lab = laboratory.find()
    if not recorded.newest(lab, stacks, remark=say):
        say("No experiment yet. Run what is described: ems up")
        return

    def follow(say: Say) -> Iterator[list[Progress]]:
        patience, looks = Patience(say), Looking(lab)
        for experiments in recorded.follow(lab, stacks, patience):
            yield patience(partial(looks, experiments))

    view.show(out, lab.name, follow, say)


@stacks_commands.command(
    rich_help_panel=CLEAN_UP, epilog="[bold]Examples[/]  ems teardown --all --dry-run · ems teardown digits --yes"
)
def teardown(
    stacks: Stacks = None,
    everything: Annotated[bool, typer.Option("--all", help="All stacks of the lab.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is held; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; --json never does.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Stop running experiments, too.")] = False,
    as_json: Json = False,
) -> None:
    """Release what finished experiments still hold, and certify that nothing is left that costs.

    What runs is kept, unless --force stops it. Exit code 5 if something could not be released.
    """
    from ems.engine import teardown as releasing
    from ems.engine.runner import Pulumi
    from ems.views import teardown as view

    lab = laboratory.find()
    if bool(stacks) == everything:
        raise UserError("Which stacks?", "Name them, or say --all.")
    asks = not (dry_run or yes or as_json)
    if asks and not sys.stdin.isatty():
        raise UserError("Nobody is there to be asked.", "Say --yes, or --dry-run to change nothing.")
    with working("surveying") as step:
        pulumi = Pulumi.of(lab, step)
        leftovers = releasing.survey(pulumi, stacks or ())
    planned = releasing.foreseen(leftovers, force=force)
    if dry_run:
        words = ["ems", "teardown", *(stacks or ["--all"]), *(["--force"] if force else [])]
        _show(planned, as_json, view.plan(planned, " ".join(words)))
        return
    if asks and any(leftover.clusters for leftover in leftovers):
        out.print(view.table(planned))
        if not typer.confirm("Release what finished experiments hold?"):
            raise typer.Exit
    with working("releasing") as step:
        leftovers = releasing.teardown(pulumi, leftovers, force=force, say=step)
    _show(leftovers, as_json, view.certificate(leftovers))
    raise typer.Exit(view.exit_code(leftovers))


def _show(leftovers: list[Leftover], as_json: bool, page: RenderableType) -> None:
    from ems.views.teardown import as_object

    if as_json:
        print_json(as_object(leftovers))
    else:
        out.print(page)
