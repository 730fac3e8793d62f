"""What finished stacks still hold, and the certificate that nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, TypedDict

from rich.console import Group, RenderableType
from rich.table import Table

from ems.engine.teardown import Leftover
from ems.errors import EngineError


def table(leftovers: Sequence[Leftover]) -> Table:
    """A row for each stack: state, clusters still declared, machines held, cost in US dollars, and what was done."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stack", "state", "clusters", "machines", "cost", "result"):
        shown.add_column(name)
    for leftover in leftovers:
        experiment = leftover.experiment
        shown.add_row(
            leftover.stack,
            str(experiment.state),
            str(leftover.clusters),
            str(experiment.machines),
            f"${experiment.cost_usd:,.2f}",
            leftover.result,
        )
    return shown


def certificate(leftovers: Sequence[Leftover]) -> RenderableType:
    """What each stack holds, and below it one line: what is left in all, when, at what cost."""
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    left = sum(leftover.clusters for leftover in leftovers)
    machines = sum(leftover.experiment.machines for leftover in leftovers)
    cost = sum(leftover.experiment.cost_usd for leftover in leftovers)
    held = f"{_count(left, 'cluster')} and {_count(machines, 'machine')} left"
    holds = held if left or machines else "nothing is left"
    spent = f"{moment}: {holds}; spent ${cost:,.2f} by {_count(len(leftovers), 'experiment')}."
    return Group(table(leftovers), spent) if leftovers else Group(spent)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class StackLeft(TypedDict):
    """What became of one stack."""

    stack: Annotated[str, "Name of the stack."]
    experiment_id: Annotated[str, "Id of its newest experiment."]
    state: Annotated[str, "State of that experiment."]
    clusters_left: Annotated[int, "How many clusters the stack still declares."]
    result: Annotated[str, "What was done, or why nothing was done."]


class TeardownObject(TypedDict):
    """The certificate: what is left in all, when, and at what cost."""

    at: Annotated[str, "When the certificate was made, ISO 8601 in UTC."]
    clusters_left: Annotated[int, "How many clusters all these stacks still declare."]
    machines_left: Annotated[int, "How many machines their experiments hold."]
    cost_usd: Annotated[float, "What their experiments have cost, in US dollars."]
    stacks: Annotated[list[StackLeft], "One object for each stack."]


def as_object(leftovers: Sequence[Leftover]) -> TeardownObject:
    """The shape of `ems teardown --json`."""
    return {
        "at": datetime.now(UTC).isoformat(),
        "clusters_left": sum(leftover.clusters for leftover in leftovers),
        "machines_left": sum(leftover.experiment.machines for leftover in leftovers),
        "cost_usd": sum(leftover.experiment.cost_usd for leftover in leftovers),
        "stacks": [
            {
                "stack": leftover.stack,
                "experiment_id": leftover.experiment.id,
                "state": str(leftover.experiment.state),
                "clusters_left": leftover.clusters,
                "result": leftover.result,
            }
            for leftover in leftovers
        ],
    }


def exit_code(leftovers: Sequence[Leftover]) -> int:
    """5 if something that was to go is still there; otherwise 0."""
    return EngineError.exit_code if any(leftover.result.startswith("failed") for leftover in leftovers) else 0
