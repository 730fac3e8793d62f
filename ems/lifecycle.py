"""What `ems up`, `ems stop` and `ems teardown` do to stacks and their experiments."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from ems import clusters, databases, preflight
from ems.databases import Experiment, State
from ems.errors import Busy, DatabaseError, EmsError, EngineError, ExperimentFailed
from ems.lab import Lab
from ems.process import CommandFailed
from ems.runner import Pulumi, export, make_ready
from ems.views.line import progress_line

UP = ("up", "--yes", "--skip-preview", "--suppress-permalink")
STOP_S = 30.0
POLL_S = 0.5

Say = Callable[[str], None]


def in_order(lab: Lab, stacks: list[str] | None) -> list[str]:
    """The stacks (default: all of the lab's) in the order in which they need one another: lab, places, experiments."""
    return sorted(stacks or lab.stacks(), key=lambda stack: (preflight.rank(lab, stack), stack))


def up(pulumi: Pulumi, stack: str, say: Say, *, detach: bool = False, retry: bool = False) -> Experiment | None:
    """Bring a stack to what its file says; of an experiment, returns the row.

    Everything that can be known to be wrong is told before Pulumi starts. If another `up` is at work on the experiment,
    its run is watched instead.
    """
    registration = preflight.require(pulumi.lab, stack)
    if registration is None:
        _describe(pulumi, stack)
        return None
    try:
        return run_experiment(pulumi, stack, registration.id, detach=detach, retry=retry)
    except Busy as busy:
        experiment = find(pulumi.lab, registration.id)
        if experiment is None or detach:
            raise
        say(busy.message)
        return watch(pulumi.lab, experiment, say)


def _describe(pulumi: Pulumi, stack: str) -> None:
    """A lab or a persistent place: rows only."""
    make_ready(pulumi, stack)
    code = pulumi.attached(*UP, "--stack", stack)
    if code:
        raise EngineError(f"`pulumi up` of {stack} ended with exit code {code}.", "Its messages stand above.")


def run_experiment(pulumi: Pulumi, stack: str, experiment_id: str, *, detach: bool, retry: bool) -> Experiment:
    """Have an experiment finished and its cluster gone; with `detach`, only have it running. Returns its row.

    Busy if somebody else updates the stack; EngineError if Pulumi fails before the run is finished.
    """
    before = find(pulumi.lab, experiment_id)
    make_ready(pulumi, stack)
    if retry and before:
        with _database(pulumi.lab) as database:
            before = database.reopen(experiment_id)
    code = pulumi.attached(*UP, "--stack", stack, **({"EMS_DETACH": "1"} if detach else {}))
    experiment = find(pulumi.lab, experiment_id)
    if experiment is None or (code and not experiment.state.finished):
        raise EngineError(f"`pulumi up` of {stack} ended with exit code {code}.", "Its messages stand above.")
    if experiment.state.finished and not (before and before.state.finished):
        reconcile(pulumi, stack, experiment_id)
    return experiment


def find(lab: Lab, experiment_id: str) -> Experiment | None:
    with _database(lab) as database:
        return database.experiment(experiment_id)


def newest(lab: Lab, stacks: list[str] | None = None) -> list[Experiment]:
    """The newest experiment of each stack that has one, by name; DatabaseError if a named one has none."""
    with _database(lab) as database:
        experiments = database.experiments()
    by_stack: dict[str, Experiment] = {}
    for experiment in experiments:
        by_stack.setdefault(experiment.registration.stack, experiment)
    for stack in stacks or []:
        if stack not in by_stack:
            raise _without_experiment(stack)
    return [by_stack[stack] for stack in sorted(stacks or by_stack)]


def latest(lab: Lab, stack: str) -> Experiment:
    """The newest experiment of a stack; DatabaseError if it has none."""
    with _database(lab) as database:
        experiments = database.experiments(stack)
    if not experiments:
        raise _without_experiment(stack)
    return experiments[0]


def _without_experiment(stack: str) -> DatabaseError:
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


def watch(lab: Lab, experiment: Experiment, say: Say) -> Experiment:
    """Follow a run that somebody else attends until it is finished or lost."""
    while not experiment.state.finished and experiment.state is not State.LOST:
        say(progress_line(experiment))
        time.sleep(POLL_S)
        experiment = find(lab, experiment.id) or experiment
    return experiment


def stop(lab: Lab, experiment: Experiment) -> Experiment:
    """Cancel through the row, so that it works from anywhere; waits until the run has stored what it has."""
    with _database(lab) as database:
        now = database.request_cancel(experiment.id) or experiment
    deadline = time.monotonic() + STOP_S
    while not now.state.finished and time.monotonic() < deadline:
        time.sleep(POLL_S)
        now = find(lab, experiment.id) or now
    return now


def reconcile(pulumi: Pulumi, stack: str, experiment_id: str) -> None:
    """Bring a finished experiment's stack to its desired state: no cluster. Whatever the working tree says."""
    try:
        pulumi.quietly(*UP, "--stack", stack, EMS_RECONCILE=experiment_id)
    except CommandFailed as error:
        raise EngineError(f"The cluster of {stack} could not be let go: {error.message}") from error


# Teardown


@dataclass(frozen=True)
class Leftover:
    """What one stack still declares, and what became of it."""

    stack: str
    experiment: Experiment
    clusters: int
    result: str = ""


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
