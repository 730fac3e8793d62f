"""What finished stacks still hold, and its release."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ems.base.errors import EmsError
from ems.base.messages import Say
from ems.databases import Experiment
from ems.engine.converged import declared_clusters
from ems.engine.lifecycle import reconcile, stop
from ems.engine.runner import Pulumi, export, make_ready, stacks
from ems.engine.turn import turn
from ems.lab.experiments import find, newest
from ems.lab.telling import Unheard


@dataclass(frozen=True)
class Leftover:
    """What one stack still declares, and what became of it.

    `experiment`: its newest one, None if no row knows it; `clusters`: how many its state has; `result`: "", `nothing
    left`, `released`, `kept: …` or `failed: …`; foreseen, also `to be released` or `to be stopped and released`.
    """

    stack: str
    experiment: Experiment | None
    clusters: int
    result: str = ""


def survey(pulumi: Pulumi, named: Sequence[str] = ()) -> list[Leftover]:
    """How many clusters the state of each stack still has; of all stacks, or of those named.

    All are those that Pulumi's backend, the database or a stack file of the working tree knows. UserError for a name
    that none of them knows; DatabaseError; EngineError if a state cannot be read.
    """
    known = {experiment.registration.stack: experiment for experiment in newest(pulumi.lab)}
    declared = set(stacks(pulumi))
    for stack in set(named) - declared - set(known):
        pulumi.lab.known([stack])

    def look(stack: str) -> Leftover:
        deployment = export(pulumi, stack) if stack in declared else None
        return Leftover(stack, known.get(stack), declared_clusters(deployment or {}))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(look, sorted(set(named) or declared | set(known))))
    return [leftover for leftover in found if leftover.experiment or leftover.clusters]


def foreseen(leftovers: Sequence[Leftover], *, force: bool) -> list[Leftover]:
    """What `teardown` would do with each."""
    return [replace(leftover, result=_refusal(leftover, force) or _plan(leftover)) for leftover in leftovers]


def _refusal(leftover: Leftover, force: bool) -> str:
    """Why it is not released; "" if it is."""
    if leftover.experiment is None:
        why = "the lab's database has no experiment of this stack"
        return f"failed: {why}; `ems pulumi destroy --stack {leftover.stack}` releases it"
    if not (leftover.experiment.state.finished or force):
        return f"kept: {leftover.experiment.state} (--force stops it)"
    return ""


def _plan(leftover: Leftover) -> str:
    if leftover.experiment and not leftover.experiment.state.finished:
        return "to be stopped and released"
    return "to be released" if leftover.clusters else "nothing left"


def teardown(pulumi: Pulumi, leftovers: list[Leftover], *, force: bool, say: Say) -> list[Leftover]:
    """Release what finished stacks still hold, in parallel; a running one only with `force`, after a stop.

    Returns what is left of each, in the order given; a release that fails is a result, and the others go on. `say` is
    told the name of each stack that is done.
    """

    def released(leftover: Leftover) -> Leftover:
        clusters, result = _release(pulumi, leftover, force=force)
        say(leftover.stack)
        now = find(pulumi.lab, leftover.experiment.id) if leftover.experiment else None
        return Leftover(leftover.stack, now or leftover.experiment, clusters, result)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(released, leftovers))


def _release(pulumi: Pulumi, leftover: Leftover, *, force: bool) -> tuple[int, str]:
    experiment, refusal = leftover.experiment, _refusal(leftover, force)
    if refusal or experiment is None:
        return leftover.clusters, refusal
    if not experiment.state.finished:
        experiment = stop(pulumi.lab, experiment)
    if not leftover.clusters:
        return 0, "nothing left"
    try:
        with turn(pulumi, leftover.stack), _no_new_file(pulumi.lab.stack_file(leftover.stack)):
            make_ready(pulumi, leftover.stack)
            reconcile(pulumi, leftover.stack, experiment.id, Unheard())
    except EmsError as error:
        return leftover.clusters, f"failed: {error}".replace("\n", " ")
    return 0, "released"


@contextmanager
def _no_new_file(stack_file: Path) -> Iterator[None]:
    """Of a stack without a file, Pulumi writes one with the salt of its secrets: it goes, as the lab has none."""
    existed = stack_file.exists()
    try:
        yield
    finally:
        if not existed:
            stack_file.unlink(missing_ok=True)
