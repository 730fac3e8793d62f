"""What `ems up`, `ems stop` and `ems teardown` do to stacks and their experiments."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from ems import clusters, databases
from ems.base.errors import (
    DatabaseError,
    DatabaseUnavailable,
    EmsError,
    EngineError,
    ExperimentFailed,
    NoTables,
    Unreachable,
)
from ems.base.messages import Say, some
from ems.clusters import pull
from ems.databases import Experiment, Registration, State, rules
from ems.engine import preflight
from ems.engine.converged import are_rows_converged, is_converged
from ems.engine.pilot import Pilot, piloted
from ems.engine.runner import Pulumi, has_state, make_ready
from ems.engine.turn import refuse, turn
from ems.lab import Lab
from ems.lab.experiments import POLL_S, find
from ems.lab.line import progress_line, way_on
from ems.lab.patience import Patience, look_s, stop_s
from ems.lab.stacks import StackFiles
from ems.lab.telling import Telling
from ems.provenance.registration import Expected, Resolved
from ems.stack.models import ClusterSpec, ExperimentSpec, LabSpec, Spec

MOST_NAMED = 3


def in_order(stacks: StackFiles, names: list[str]) -> list[str]:
    """The named stacks, each once, in the order in which they need one another: lab, places, experiments.

    StackFileError if one of the files has faults.
    """
    return sorted(set(names), key=lambda stack: (preflight.rank(stacks, stack), stack))


def with_lab(pulumi: Pulumi, stacks: StackFiles, names: list[str], say: Say) -> list[str]:
    """`names`, and before them the stack of the lab where the database lacks its tables, or rows that they refer to.

    Tables are made in a lab that never had any: where they were lost, somebody has to say so.
    """
    laboratory, specs = stacks.lab_stack(), [stacks.spec(stack) for stack in names]
    wanted = {(spec.experimenter, spec.project, spec.funding) for spec in specs if isinstance(spec, ExperimentSpec)}
    if laboratory is None or laboratory in names or not wanted:
        return names
    with stacks.lab.database() as database:
        try:
            lacking = any(database.missing(*references) for references in sorted(wanted))
        except NoTables:
            lacking = not has_state(pulumi, laboratory)
        except DatabaseUnavailable:
            raise
        except DatabaseError:  # what is wrong with it is told where it is used
            lacking = False
    if lacking and len(names) == 1:  # before an engine is fetched for what would not run
        resolved = preflight.require(stacks, names[0])
        if resolved:
            preflight.require_sources(stacks, names[0], resolved)
    if lacking:
        say(f"The database lacks the lab, or a part of it, so that is registered first: ems up {laboratory}")
    return [laboratory, *names] if lacking else names


def imported(lab: Lab, names: list[str]) -> list[Experiment]:
    """Those of `names` that `ems import` brought in and that have no stack file: there is nothing to run."""
    without_file = sorted({stack for stack in names if not lab.stack_file(stack).exists()})
    if not without_file:
        return []
    with lab.database() as database:
        try:
            found = database.newest(without_file, also=["spec", "platform"])
        except DatabaseError:  # what is wrong with it, or with the names, is told where they are used
            return []
    return [experiment for experiment in found if experiment.registration.imported]


class Ended(NamedTuple):
    """An experiment as `up` leaves it. `ran`: whether there was anything to do."""

    experiment: Experiment
    ran: bool


@dataclass(frozen=True)
class Wishes:
    """How `up` is asked for. `refresh`: to update what needs none, too; `verbose`: to show all that Pulumi shows.

    `pilot`: to compute a random sample of points only, for now.
    """

    detach: bool = False
    retry: bool = False
    refresh: bool = False
    verbose: bool = False
    pilot: Pilot | None = None


def up(pulumi: Pulumi, stacks: StackFiles, stack: str, telling: Telling, wishes: Wishes) -> Ended | None:
    """Bring a stack to what its file says; None of one that is not an experiment.

    Everything that can be known to be wrong is raised before Pulumi starts, as of `preflight.require`. If another
    command is at work on the stack, the run is watched until that one has ended, and what it left undone is done. With
    `detach` that is Busy. Otherwise than by a run that failed, which is in the row, an update fails by what program and
    provider raise, or by an EngineError.
    """
    resolved = preflight.require(stacks, stack)
    if resolved is None:
        with turn(pulumi, stack):
            _describe(pulumi, stack, stacks, telling, wishes)
        return None
    before = find(pulumi.lab, resolved.row.id)
    if wishes.pilot:
        resolved = resolved._replace(row=piloted(resolved.row, wishes.pilot, before, retry=wishes.retry))
    if before and _needs_nothing(pulumi, stack, before, resolved.row, wishes):
        return Ended(before, ran=False)
    retry = wishes.retry and before is not None and before.state in databases.RETRYABLE  # not what fails while we wait
    if retry or before is None or not before.state.finished or rules.reopened_by(before, resolved.row):
        preflight.require_inputs(stacks, stack)
        preflight.require_sources(stacks, stack, resolved)
        preflight.require_store(stacks, stack, telling.say)
    if before is None:
        _prepare_new(pulumi.lab, stacks, stack, resolved, telling)
    waiting = refuse if wishes.detach else _Follower(pulumi.lab, resolved.row.id, telling)
    wishes = replace(wishes, retry=retry)
    try:
        with turn(pulumi, stack, waiting):
            now = find(pulumi.lab, resolved.row.id)
            if now and _needs_nothing(pulumi, stack, now, resolved.row, wishes):  # as another command has done it
                return Ended(now, ran=False)
            return Ended(_run(pulumi, stack, _expected(stacks, stack, resolved), telling, wishes), ran=True)
    except KeyboardInterrupt:
        telling.note(_after_interrupt(pulumi.lab, stack, resolved.row.id))
        raise


def _prepare_new(lab: Lab, stacks: StackFiles, stack: str, resolved: Resolved, telling: Telling) -> None:
    """Of an experiment that has no row yet: why it is a new one, what its environment shows to be impossible."""
    if why := preflight.why_new(stacks, stack, resolved):
        telling.note(why)
    preflight.refuse_imported(lab, stack)
    preflight.refuse_settings(stacks, stack, resolved)
    preflight.build_environment(stacks, stack, resolved, telling.say)
    preflight.require_sources(stacks, stack, resolved)  # once more: now it is known which modules there are


def _expected(stacks: StackFiles, stack: str, resolved: Resolved) -> Expected:
    described = stacks.spec(stack)
    assert isinstance(described, ExperimentSpec)
    return Expected(described, resolved.row)


def _needs_nothing(pulumi: Pulumi, stack: str, experiment: Experiment, row: Registration, wishes: Wishes) -> bool:
    if wishes.refresh or (wishes.retry and experiment.state in databases.RETRYABLE):
        return False
    return is_converged(pulumi, stack, experiment, row)


def _after_interrupt(lab: Lab, stack: str, experiment_id: str) -> str:
    experiment = find(lab, experiment_id)
    if experiment is None:
        return f"interrupted before anything was registered. Go on with: ems up {stack}"
    retry = " --retry" if experiment.state in databases.RETRYABLE else ""
    return f"interrupted: {progress_line(experiment)}. Go on with: ems up {stack}{retry}"


def _describe(pulumi: Pulumi, stack: str, stacks: StackFiles, telling: Telling, wishes: Wishes) -> None:
    """A lab or a persistent place: rows only. Brings tables of an older EMS up to date, also where no row changed."""
    described = stacks.spec(stack)
    assert not isinstance(described, ExperimentSpec)
    with pulumi.lab.database() as database:
        database.create()
        lost = _is_lost(database, stack, described)
    if not wishes.refresh and are_rows_converged(pulumi, stack, described):
        return
    pulumi.ensure(telling.say)
    again = lost or (wishes.refresh and isinstance(described, ClusterSpec))  # Pulumi looks at the place anew
    make_ready(pulumi, stack, lambda resource: again and resource["type"].startswith("ems:index:"))
    if failure := _updated(pulumi, stack, telling, wishes):
        raise failure


def _updated(
    pulumi: Pulumi, stack: str, telling: Telling, wishes: Wishes, expected: Expected | None = None
) -> EmsError | None:
    from ems.engine import program  # Pulumi's libraries: only where there is something to update
    from ems.engine.update import update

    declare = partial(program.declare, pulumi.lab, stack, note=telling.note, expected=expected)
    return update(pulumi, stack, declare, None if wishes.verbose else telling, detach=wishes.detach)


def _load() -> None:
    """What an update needs takes a while, in which other processes may work."""
    from ems.engine import program, update  # noqa: F401


def _is_lost(database: databases.Database, stack: str, described: Spec) -> bool:
    """Whether the database has not the rows of a lab or a place, as before the first update, or after it was lost."""
    if isinstance(described, LabSpec):
        groups = (described.experimenters, described.projects, described.funding)
        return all(groups) and bool(database.missing(*(next(iter(group)) for group in groups)))
    return database.record(databases.ClusterRow, stack) is None


def _run(pulumi: Pulumi, stack: str, expected: Expected, telling: Telling, wishes: Wishes) -> Experiment:
    """Have an experiment finished and its cluster gone; with `detach`, only have it running."""
    row = expected.row
    threading.Thread(target=_load, daemon=True).start()
    pulumi.ensure(telling.say)
    before = find(pulumi.lab, row.id)
    if before and before.state is State.EXPIRED and before.machines:  # its deadline passed, and nobody wrote so
        clusters.of(pulumi.lab, before).settle(pulumi.lab, before)
    make_ready(pulumi, stack, lambda resource: before is None and resource.get("id") == row.id)
    if wishes.retry and before:
        with pulumi.lab.database() as database:
            before = database.reopen(row.id)
    if before is None:
        clusters.of_registered(pulumi.lab, row).expect(pulumi.lab, row)
    failure = _updated(pulumi, stack, telling, wishes, expected)
    experiment = find(pulumi.lab, row.id)
    ended = experiment is not None and experiment.state.finished and not _as_before(experiment, before)
    if failure and not ended:
        raise failure
    if experiment is None:
        raise EngineError(f"The update of {stack} has registered no experiment {row.id}.", f"Repeat: ems up {stack}")
    if ended:
        reconcile(pulumi, stack, row.id, telling)
    return experiment


def _as_before(experiment: Experiment, before: Experiment | None) -> bool:
    """Whether it was finished before this update, which ran nothing; a stack file that reopens it begins an attempt."""
    if before is None or not before.state.finished:
        return False
    return (experiment.attempt, experiment.wanted_attempt) == (before.attempt, before.wanted_attempt)


class _Follower:
    """Shows an experiment's progress while somebody else attends to it."""

    def __init__(self, lab: Lab, experiment_id: str, telling: Telling) -> None:
        self._lab, self._experiment_id, self._telling = lab, experiment_id, telling
        self._patience = Patience(telling.note)
        self._holder = ""

    def __call__(self, holder: str) -> None:
        if holder != self._holder:
            self._holder = holder
            self._telling.note(f"{holder}; watching its run")
        experiment = self._patience(lambda: find(self._lab, self._experiment_id))
        if experiment:
            self._telling.look(experiment)
        time.sleep(POLL_S)


def raise_if_failed(experiments: list[Experiment]) -> None:
    """ExperimentFailed names those that ended otherwise than `succeeded`, and says why one of them did."""
    failed = [experiment for experiment in experiments if experiment.state in databases.RETRYABLE]
    if not failed:
        return
    names = [experiment.registration.stack for experiment in failed]
    if len(failed) == 1:
        raise ExperimentFailed(f"{names[0]} {failed[0].state}: {failed[0].error}".rstrip(": "), way_on(failed[0]))
    states = sorted({f"--state {experiment.state}" for experiment in failed})
    look = f"ems status {' '.join(names if len(names) <= MOST_NAMED else states)}"
    raise ExperimentFailed(
        f"{len(failed)} of {len(experiments)} experiments did not succeed: {some(names)}.",
        f"See why: {look}; go on with: ems up --retry",
    )


def stop(lab: Lab, experiment: Experiment, *, give_up: bool = False) -> Experiment:
    """Cancel through the row, so that it works from anywhere; waits until the run has stored what it has.

    Returns the row, which is still not finished if that takes longer than `patience.stop_s`. `give_up`: its place is
    gone for good, with the rows that it keeps; UserError as of `pull.give_up`.
    """
    place = clusters.of(lab, experiment)
    if give_up:
        pull.give_up(lab, experiment)
        with lab.database() as database:
            return database.request_cancel(experiment.id) or experiment
    _fetch(lab, experiment, place)  # a run that has begun unheard of is to be asked, too
    with lab.database() as database:
        deadline = time.monotonic() + stop_s(database)
        now = database.request_cancel(experiment.id) or experiment
        place.nudge(lab, experiment)
        while not now.state.finished and time.monotonic() < deadline:
            time.sleep(look_s(database, POLL_S))
            _fetch(lab, experiment, place)
            # Once more each time: of a run without a living agent, the cancellation counts from the end of its lease.
            now = database.request_cancel(experiment.id) or now
    if now.state.finished:
        place.dismiss(lab, experiment.id)
    return now


def _fetch(lab: Lab, experiment: Experiment, place: clusters.Place) -> None:
    with suppress(Unreachable):  # the run hears it once its place is reached
        place.fetch(lab, experiment)


def reconcile(pulumi: Pulumi, stack: str, experiment_id: str, telling: Telling) -> None:
    """Bring a finished experiment's stack to its desired state: no cluster. Whatever the working tree says.

    EngineError if the cluster could not be released.
    """
    from ems.engine import program  # as in `_updated`
    from ems.engine.update import update

    failure = update(pulumi, stack, partial(program.declare_finished, stack, experiment_id), telling)
    if failure:
        raise EngineError(f"The cluster of {stack} could not be released: {failure.message}", failure.hint)


# Teardown
