"""The rows that the stack file of a lab or a persistent place comes to."""

from __future__ import annotations

from ems.databases import ClusterRow, Experimenter, Funding, Project, Record
from ems.databases.projects import parents_first
from ems.stack import spec
from ems.stack.models import ClusterSpec, LabSpec


def rows_of(stack: str, described: LabSpec | ClusterSpec) -> list[Record]:
    """The rows that a stack describes, each after those that it refers to."""
    if isinstance(described, ClusterSpec):
        return [ClusterRow(stack, described.kind, spec.to_json(described))]
    projects = described.projects
    in_order = parents_first({id: project.parent for id, project in projects.items()})
    return [
        *(Experimenter(id=id, **dict(experimenter)) for id, experimenter in described.experimenters.items()),
        *(Funding(id=id, **dict(funding)) for id, funding in described.funding.items()),
        *(Project(id=id, **dict(projects[id])) for id in in_order),
    ]
