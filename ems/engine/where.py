"""The place of a stack, as the lab's stack files say it."""

from __future__ import annotations

from typing import NamedTuple

from ems import clusters
from ems.base.errors import Fault, StackFileError
from ems.base.messages import nearest, show
from ems.clusters import Place
from ems.lab.stacks import StackFiles, locating
from ems.stack.models import ClusterSpec, ExperimentSpec


class Where(NamedTuple):
    """The kind of a place, and what this command attends to runs there with."""

    kind: str
    place: Place


def is_by_ssh(stacks: StackFiles, stack: str, described: ExperimentSpec | ClusterSpec) -> bool:
    """Whether the place is reached by SSH alone. UserError as of `clusters.host`."""
    named = described.cluster.stack if isinstance(described, ExperimentSpec) else None
    return clusters.host(stacks.places()[named] if named else described, named or stack) is not None


def where_of(stacks: StackFiles, stack: str, described: ExperimentSpec | ClusterSpec) -> Where:
    """StackFileError if an experiment names a stack that is not a place."""
    if isinstance(described, ClusterSpec):
        return Where(described.kind, clusters.attending(described.kind, described.reach))
    if described.cluster.kind:
        return Where(described.cluster.kind, clusters.place(described.cluster.kind))
    name, places = str(described.cluster.stack), stacks.places()
    if name in places:
        return where_of(stacks, name, places[name])
    problem = f"is {show(name)}, which no stack file describes as an `ems:cluster`: {nearest(name, places)}"
    with locating(stacks.lab, stack):
        raise StackFileError([Fault("ems:experiment.cluster.stack", problem)])
