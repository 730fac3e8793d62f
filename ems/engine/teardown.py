"""What finished stacks still hold, and its release."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ems import plugins
from ems.databases import Experiment
from ems.engine.lifecycle import reconcile, stop
from ems.engine.provider.cluster import token
from ems.engine.runner import Pulumi, export, make_ready
from ems.engine.turn import turn
from ems.errors import EmsError
from ems.lab.experiments import find
from ems.messages import Say


@dataclass(frozen=True)
class Leftover:
    """What one stack still declares, and what became of it."""

    stack: str
    experiment: Experiment
    clusters: int
    result: str = ""


def survey(pulumi: Pulumi, stacks: list[str]) -> list[Leftover]:
    """For each stack with an experiment: how many clusters its state still has."""
    with pulumi.lab.database() as database:
        newest = {stack: rows[0] for stack in stacks if (rows := database.experiments(stack))}

    def look(stack: str) -> Leftover:
        return Leftover(stack, newest[stack], _declared_clusters(export(pulumi, stack) or {}))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(look, newest))


def teardown(pulumi: Pulumi, leftovers: list[Leftover], *, force: bool, say: Say) -> list[Leftover]:
    """Release what finished stacks still hold, in parallel; a running one only with `force`, after a stop."""

    def released(leftover: Leftover) -> Leftover:
        result = _release(pulumi, leftover, force=force)
        say(leftover.stack)
        return Leftover(leftover.stack, find(pulumi.lab, leftover.experiment.id) or leftover.experiment, *result)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(released, leftovers))


def _release(pulumi: Pulumi, leftover: Leftover, *, force: bool) -> tuple[int, str]:
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
    return 0, "released"


def _declared_clusters(deployment: Mapping[str, Any]) -> int:
    """How many clusters the stack's state has, also those whose creation was interrupted."""
    tokens = set(map(token, plugins.names("clusters")))
    pending = [operation["resource"] for operation in deployment.get("pending_operations") or []]
    return sum(resource["type"] in tokens for resource in [*(deployment.get("resources") or []), *pending])
