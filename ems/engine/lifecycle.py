"""What `ems up`, `ems stop` and `ems teardown` do to stacks and their experiments."""

from __future__ import annotations

import time

from ems import clusters, databases
from ems.base.errors import DatabaseError, DatabaseUnavailable, EngineError, ExperimentFailed, NoTables
from ems.base.messages import Say
from ems.base.process import CommandFailed
from ems.databases import Experiment, State
from ems.engine import preflight
from ems.engine.runner import Pulumi, export, make_ready
from ems.engine.turn import refuse, turn
from ems.lab import Lab
from ems.lab.experiments import POLL_S, find
from ems.lab.line import progress_line
from ems.lab.patience import Pace, Patience, look_s, stop_s
from ems.lab.stacks import StackFiles
from ems.stack.models import ExperimentSpec, LabSpec, Spec

UP = ("up", "--yes", "--skip-preview", "--suppress-permalink=true")


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
    wanted = [spec for spec in specs if isinstance(spec, ExperimentSpec)]
    if laboratory is None or laboratory in names or not wanted:
        return names
    with stacks.lab.database() as database:
        try:
            lacking = any(database.missing(spec.experimenter, spec.project, spec.funding) for spec in wanted)
        except NoTables:
            lacking = export(pulumi, laboratory) is None
        except DatabaseUnavailable:
            raise
        except DatabaseError:  # what is wrong with it is told where it is used
            lacking = False
    if lacking:
        say(f"The database lacks the lab, or a part of it, so that is registered first: ems up {laboratory}")
    return [laboratory, *names] if lacking else names


def up(
    pulumi: Pulumi, stacks: StackFiles, stack: str, say: Say, *, detach: bool = False, retry: bool = False
) -> Experiment | None:
    """Bring a stack to what its file says; of an experiment, returns the row, of another stack None.

    Everything that can be known to be wrong is raised before Pulumi starts, as of `preflight.require`. If another
    command is at work on the stack, the run is watched until that one has ended, and what it left undone is done. With
    `detach` that is Busy. EngineError if Pulumi fails otherwise than by a run; a failed run is in the row.
    """
    resolved = preflight.require(stacks, stack)
    if resolved is None:
        with turn(pulumi, stack):
            _describe(pulumi, stack, stacks.spec(stack))
        return None
    experiment_id = resolved.row.id
    before = find(pulumi.lab, experiment_id)
    retry = retry and before is not None and before.state in databases.RETRYABLE  # not what fails while we wait
    if retry or before is None or not before.state.finished:
        preflight.require_inputs(stacks, stack)
        preflight.require_sources(stacks, stack, resolved)
    if before is None:
        preflight.build_environment(stacks, stack, resolved, say)
    waiting = refuse if detach else _Follower(pulumi.lab, experiment_id, say)
    try:
        with turn(pulumi, stack, waiting):
            return run_experiment(pulumi, stack, experiment_id, detach=detach, retry=retry)
    except KeyboardInterrupt:
        say(_after_interrupt(pulumi.lab, stack, experiment_id))
        raise


def _after_interrupt(lab: Lab, stack: str, experiment_id: str) -> str:
    experiment = find(lab, experiment_id)
    if experiment is None:
        return f"interrupted before anything was registered. Go on with: ems up {stack}"
    retry = " --retry" if experiment.state in databases.RETRYABLE else ""
    return f"interrupted: {progress_line(experiment)}. Go on with: ems up {stack}{retry}"


def _describe(pulumi: Pulumi, stack: str, described: Spec) -> None:
    """A lab or a persistent place: rows only. Brings tables of an older EMS up to date, also where no row changed."""
    with pulumi.lab.database() as database:
        database.create()
        lost = _is_lost(database, stack, described)
    make_ready(pulumi, stack, lambda resource: lost and resource["type"].startswith("ems:index:"))
    code = pulumi.attached(*UP, "--stack", stack)
    if code:
        raise EngineError(f"`pulumi up` of {stack} ended with exit code {code}.", "Its messages stand above.")


def _is_lost(database: databases.Database, stack: str, described: Spec) -> bool:
    """Whether the database has not the rows of a lab or a place, as before the first update, or after it was lost."""
    if isinstance(described, LabSpec):
        groups = (described.experimenters, described.projects, described.funding)
        return all(groups) and bool(database.missing(*(next(iter(group)) for group in groups)))
    return database.record(databases.ClusterRow, stack) is None


def run_experiment(pulumi: Pulumi, stack: str, experiment_id: str, *, detach: bool, retry: bool) -> Experiment:
    """Have an experiment finished and its cluster gone; with `detach`, only have it running. Returns its row.

    EngineError if Pulumi fails otherwise than by a run that did.
    """
    before = find(pulumi.lab, experiment_id)
    if before and before.state is State.EXPIRED and before.machines:  # its deadline passed, and nobody wrote so
        clusters.of(pulumi.lab, before).settle(pulumi.lab, before)
    make_ready(pulumi, stack, lambda resource: before is None and resource.get("id") == experiment_id)
    if retry and before:
        with pulumi.lab.database() as database:
            before = database.reopen(experiment_id)
    code = pulumi.attached(*UP, "--stack", stack, **({"EMS_DETACH": "1"} if detach else {}))
    experiment = find(pulumi.lab, experiment_id)
    ended = experiment is not None and experiment.state.finished and not _as_before(experiment, before)
    if experiment is None or (code and not ended):
        raise EngineError(f"`pulumi up` of {stack} ended with exit code {code}.", "Its messages stand above.")
    if ended:
        reconcile(pulumi, stack, experiment_id)
    return experiment


def _as_before(experiment: Experiment, before: Experiment | None) -> bool:
    """Whether it was finished before this update, which ran nothing; a stack file that reopens it begins an attempt."""
    if before is None or not before.state.finished:
        return False
    return (experiment.attempt, experiment.wanted_attempt) == (before.attempt, before.wanted_attempt)


class _Follower:
    """Shows an experiment's progress while somebody else attends to it."""

    def __init__(self, lab: Lab, experiment_id: str, say: Say) -> None:
        self._lab, self._experiment_id, self._say = lab, experiment_id, say
        self._pace, self._patience = Pace(), Patience(say)
        self._holder = ""

    def __call__(self, holder: str) -> None:
        if holder != self._holder:
            self._holder = holder
            self._say(f"{holder}; watching its run")
        experiment = self._patience(lambda: find(self._lab, self._experiment_id))
        if experiment and self._pace.shows(progress_line(experiment)):
            self._say(progress_line(experiment))
        time.sleep(POLL_S)


def raise_if_failed(experiments: list[Experiment]) -> None:
    """ExperimentFailed names each that ended otherwise than `succeeded`."""
    failed = [experiment for experiment in experiments if experiment.state in databases.RETRYABLE]
    if failed:
        names = [experiment.registration.stack for experiment in failed]
        raise ExperimentFailed(
            "; ".join(f"{e.registration.stack} {e.state}: {e.error}".rstrip(": ") for e in failed),
            "\n".join(f"See `ems logs {name}`; go on with `ems up {name} --retry`." for name in names),
        )


def stop(lab: Lab, experiment: Experiment) -> Experiment:
    """Cancel through the row, so that it works from anywhere; waits until the run has stored what it has.

    Returns the row, which is still not finished if that takes longer than `patience.stop_s`.
    """
    place = clusters.of(lab, experiment)
    with lab.database() as database:
        deadline = time.monotonic() + stop_s(database)
        now = database.request_cancel(experiment.id) or experiment
        place.nudge(lab, experiment)
        while not now.state.finished and time.monotonic() < deadline:
            time.sleep(look_s(database, POLL_S))
            # Once more each time: of a run without a living agent, the cancellation counts from the end of its lease.
            now = database.request_cancel(experiment.id) or now
    if now.state.finished:
        place.dismiss(lab, experiment.id)
    return now


def reconcile(pulumi: Pulumi, stack: str, experiment_id: str) -> None:
    """Bring a finished experiment's stack to its desired state: no cluster. Whatever the working tree says.

    EngineError if the cluster could not be released.
    """
    try:
        pulumi.quietly(*UP, "--stack", stack, EMS_RECONCILE=experiment_id)
    except CommandFailed as error:
        raise EngineError(f"The cluster of {stack} could not be released: {error.message}") from error


# Teardown
