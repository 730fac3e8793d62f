"""Whether a stack is as its file describes it, seen from its state and the database: the engine is not asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ems.base import plugins
from ems.base.errors import EngineError
from ems.databases import Experiment, Registration, rules
from ems.engine import manners
from ems.engine.provider.tokens import EXPERIMENT, RUN, row_token, token
from ems.engine.runner import Pulumi, export
from ems.lab.described import rows_of
from ems.stack.models import ClusterSpec, LabSpec


def declared_clusters(deployment: Mapping[str, Any]) -> int:
    """How many clusters a stack's state has, also those whose creation was interrupted."""
    tokens = set(map(token, plugins.names("clusters")))
    pending = [operation["resource"] for operation in deployment.get("pending_operations") or []]
    return sum(resource["type"] in tokens for resource in [*(deployment.get("resources") or []), *pending])


def declaring(pulumi: Pulumi, experiments: Iterable[Experiment]) -> list[str]:
    """The stacks of those finished whose state still has a cluster, as after a run that nobody waited for.

    Asked only where states are files: others take a second each.
    """
    if not (backend := pulumi.backend()):
        return []
    finished = (each.registration.stack for each in experiments if each.state.finished)
    states = ((stack, manners.state(backend, pulumi.lab.name, stack)) for stack in finished)
    return [stack for stack, state in states if _declares(state)]


def _declares(state: Path) -> bool:
    try:
        return declared_clusters(manners.deployment(state) or {}) > 0
    except EngineError:  # `ems up` and `ems teardown` tell
        return False


def is_converged(pulumi: Pulumi, stack: str, experiment: Experiment, row: Registration) -> bool:
    """Whether an update would change nothing: `experiment` is finished, is registered as `row` says, and its stack
    holds it and no cluster."""
    if not experiment.state.finished or experiment.destroyed_at or rules.reopened_by(experiment, row):
        return False
    follows = {name: getattr(row, name) for name in rules.FOLLOWS}
    if replace(experiment.registration, **follows) != row:
        return False
    return _held(pulumi, stack) == {(EXPERIMENT, experiment.id), (RUN, experiment.id)}


def are_rows_converged(pulumi: Pulumi, stack: str, described: LabSpec | ClusterSpec) -> bool:
    """The same of a lab or a persistent place: the database has its rows, and its stack holds just these."""
    rows = rows_of(stack, described)
    if _held(pulumi, stack) != {(row_token(type(row)), row.id) for row in rows}:
        return False
    with pulumi.lab.database() as database:
        return all(database.record(type(row), row.id) == row for row in rows)


def _held(pulumi: Pulumi, stack: str) -> set[tuple[str, str]] | None:
    """Type and id of what the stack's state has beside the stack itself.

    None if something was interrupted, or the state cannot be read: an update repairs it, and tells so.
    """
    try:
        deployment = export(pulumi, stack) or {}
    except EngineError:
        return None
    if deployment.get("pending_operations"):
        return None
    own = [resource for resource in deployment.get("resources") or [] if resource["type"].startswith("ems:")]
    return {(resource["type"], resource.get("id", "")) for resource in own}
