"""What `ems up`, `ems stop` and `ems teardown` do to stacks and their experiments."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

from ems import clusters, databases, preflight
from ems.databases import Experiment, State
from ems.errors import DatabaseError, EmsError, EngineError, ExperimentFailed
from ems.lab import Lab
from ems.node.config import tell_to_listen
from ems.process import CommandFailed
from ems.runner import Pulumi, export, make_ready
from ems.turn import refuse, turn
from ems.views.line import Pace, progress_line, under_way
from ems.views.patience import Patience, Say, look_s, stop_s
from ems.views.teardown import Leftover

UP = ("up", "--yes", "--skip-preview", "--suppress-permalink=true")
POLL_S = 0.5


def in_order(lab: Lab, stacks: list[str] | None) -> list[str]:
    """The stacks (default: all of the lab's) in the order in which they need one another: lab, places, experiments."""
    return sorted(set(stacks or lab.stacks()), key=lambda stack: (preflight.rank(lab, stack), stack))


def up(pulumi: Pulumi, stack: str, say: Say, *, detach: bool = False, retry: bool = False) -> Experiment | None:
    """Bring a stack to what its file says; of an experiment, returns the row.

    Everything that can be known to be wrong is told before Pulumi starts. If another command is at work on the stack,
    the run is watched until that one has ended, and what it left undone is done. With `detach` that is Busy.
    """
    registration = preflight.require(pulumi.lab, stack)
    if registration is None:
        with turn(pulumi, stack):
            _describe(pulumi, stack)
        return None
    before = find(pulumi.lab, registration.id)
    retry = retry and before is not None and before.state in databases.RETRYABLE  # not what fails while we wait
    if retry or before is None or not before.state.finished:
        preflight.require_inputs(pulumi.lab, stack)
    waiting = refuse if detach else _Follower(pulumi.lab, registration.id, say)
    try:
        with turn(pulumi, stack, waiting):
            return run_experiment(pulumi, stack, registration.id, detach=detach, retry=retry)
    except KeyboardInterrupt:
        say(_after_interrupt(pulumi.lab, stack, registration.id))
        raise


def _after_interrupt(lab: Lab, stack: str, experiment_id: str) -> str:
    experiment = find(lab, experiment_id)
    if experiment is None:
        return f"interrupted before anything was registered. Go on with: ems up {stack}"
    retry = " --retry" if experiment.state in databases.RETRYABLE else ""
    return f"interrupted: {progress_line(experiment)}. Go on with: ems up {stack}{retry}"


def _describe(pulumi: Pulumi, stack: str) -> None:
    """A lab or a persistent place: rows only. Brings tables of an older EMS up to date, also where no row changed."""
    with _database(pulumi.lab) as database:
        database.create()
    make_ready(pulumi, stack)
    code = pulumi.attached(*UP, "--stack", stack)
    if code:
        raise EngineError(f"`pulumi up` of {stack} ended with exit code {code}.", "Its messages stand above.")


def run_experiment(pulumi: Pulumi, stack: str, experiment_id: str, *, detach: bool, retry: bool) -> Experiment:
    """Have an experiment finished and its cluster gone; with `detach`, only have it running. Returns its row.

    EngineError if Pulumi fails otherwise than by a run that did.
    """
    before = find(pulumi.lab, experiment_id)
    if before and before.state is State.EXPIRED and before.machines:  # its deadline passed, and nobody wrote so
        _place(pulumi.lab, before).settle(pulumi.lab, before)
    make_ready(pulumi, stack)
    if retry and before:
        with _database(pulumi.lab) as database:
            before = database.reopen(experiment_id)
    code = pulumi.attached(*UP, "--stack", stack, **({"EMS_DETACH": "1"} if detach else {}))
    experiment = find(pulumi.lab, experiment_id)
    ended = experiment is not None and experiment.state.finished and not (before and before.state.finished)
    if experiment is None or (code and not ended):
        raise EngineError(f"`pulumi up` of {stack} ended with exit code {code}.", "Its messages stand above.")
    if ended:
        reconcile(pulumi, stack, experiment_id)
    return experiment


def _place(lab: Lab, experiment: Experiment) -> clusters.Place:
    name = experiment.registration.cluster
    with _database(lab) as database:
        persistent = database.record(databases.ClusterRow, name)
    return clusters.place(persistent.kind if persistent else name)


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


def find(lab: Lab, experiment_id: str) -> Experiment | None:
    with _database(lab) as database:
        return database.experiment(experiment_id)


def newest(lab: Lab, stacks: list[str] | None = None) -> list[Experiment]:
    """The newest experiment of each stack that has one, by name; DatabaseError if a named one has none."""
    experiments = _experiments(lab, stacks or [])
    by_stack: dict[str, Experiment] = {}
    for experiment in experiments:
        by_stack.setdefault(experiment.registration.stack, experiment)
    for stack in stacks or []:
        if stack not in by_stack:
            raise _without_experiment(lab, stack)
    return [by_stack[stack] for stack in sorted(set(stacks or by_stack))]


def follow(lab: Lab, stacks: list[str] | None, patience: Patience) -> Iterator[list[Experiment]]:
    """The newest experiments again and again, until none is under way. Only the first look may find no database."""
    with _database(lab) as database:
        pause_s = look_s(database, POLL_S)
    experiments = newest(lab, stacks)
    while True:
        yield experiments
        if not any(map(under_way, experiments)):
            return
        time.sleep(pause_s)
        experiments = patience(lambda: newest(lab, stacks))


def latest(lab: Lab, stack: str) -> Experiment:
    """The newest experiment of a stack; DatabaseError if it has none."""
    experiments = [found for found in _experiments(lab, [stack]) if found.registration.stack == stack]
    if not experiments:
        raise _without_experiment(lab, stack)
    return experiments[0]


def _experiments(lab: Lab, named: list[str]) -> list[Experiment]:
    """All there are; where the database cannot say, a name that is no stack is told first."""
    try:
        with _database(lab) as database:
            return database.experiments()
    except DatabaseError:
        lab.known(named)
        raise


def _without_experiment(lab: Lab, stack: str) -> DatabaseError:
    lab.known([stack])
    return DatabaseError(f"Stack {stack!r} has no experiment in the lab's database.", f"Run it: ems up {stack}")


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
    """Cancel through the row, so that it works from anywhere; waits until the run has stored what it has."""
    with _database(lab) as database:
        deadline = time.monotonic() + stop_s(database)
        now = database.request_cancel(experiment.id) or experiment
        tell_to_listen(lab.run_dir(experiment.id))
        while not now.state.finished and time.monotonic() < deadline:
            time.sleep(look_s(database, POLL_S))
            # Once more each time: of a run without a living agent, the cancellation counts from the end of its lease.
            now = database.request_cancel(experiment.id) or now
    return now


def reconcile(pulumi: Pulumi, stack: str, experiment_id: str) -> None:
    """Bring a finished experiment's stack to its desired state: no cluster. Whatever the working tree says."""
    try:
        pulumi.quietly(*UP, "--stack", stack, EMS_RECONCILE=experiment_id)
    except CommandFailed as error:
        raise EngineError(f"The cluster of {stack} could not be let go: {error.message}") from error


# Teardown


def survey(pulumi: Pulumi, stacks: list[str]) -> list[Leftover]:
    """For each stack with an experiment: how many clusters its state still has."""
    with _database(pulumi.lab) as database:
        newest = {stack: rows[0] for stack in stacks if (rows := database.experiments(stack))}

    def look(stack: str) -> Leftover:
        return Leftover(stack, newest[stack], _declared_clusters(export(pulumi, stack) or {}))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(look, newest))


def teardown(pulumi: Pulumi, leftovers: list[Leftover], *, force: bool, progress: Say) -> list[Leftover]:
    """Let go what finished stacks still hold, in parallel; a running one only with `force`, after a stop."""

    def let_go(leftover: Leftover) -> Leftover:
        result = _let_go(pulumi, leftover, force=force)
        progress(leftover.stack)
        return Leftover(leftover.stack, find(pulumi.lab, leftover.experiment.id) or leftover.experiment, *result)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(let_go, leftovers))


def _let_go(pulumi: Pulumi, leftover: Leftover, *, force: bool) -> tuple[int, str]:
    experiment = leftover.experiment
    if not experiment.state.finished:
        if not force:
            return leftover.clusters, f"kept: {experiment.state} (--force stops it)"
        experiment = stop(pulumi.lab, experiment)
    if not leftover.clusters:
        return 0, "nothing left"
    try:
        with turn(pulumi, leftover.stack):
            make_ready(pulumi, leftover.stack)
            reconcile(pulumi, leftover.stack, experiment.id)
    except EmsError as error:
        return leftover.clusters, f"failed: {error.message}"
    return 0, "let go"


def _declared_clusters(deployment: Mapping[str, Any]) -> int:
    tokens = {clusters.place(kind).cluster for kind in clusters.kinds()}
    pending = [operation["resource"] for operation in deployment.get("pending_operations") or []]
    return sum(resource["type"] in tokens for resource in [*(deployment.get("resources") or []), *pending])


@contextmanager
def _database(lab: Lab) -> Iterator[databases.Database]:
    with closing(databases.connect(lab.database_url, lab.root)) as database:
        yield database
