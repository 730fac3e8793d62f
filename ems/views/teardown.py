"""What finished stacks still hold, and the certificate that nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, TypedDict

from rich.console import Group, RenderableType
from rich.table import Table

from ems.base.errors import EngineError
from ems.base.messages import counted
from ems.engine.teardown import Leftover
from ems.lab.line import standing


def table(leftovers: Sequence[Leftover]) -> Table:
    """One line for each stack."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stack", "state", "clusters", "machines", "cost", "result"):
        shown.add_column(name, overflow="fold")
    for leftover in leftovers:
        state, cost = _state(leftover), f"${_cost_usd(leftover):,.2f}"
        clusters, machines = str(leftover.clusters), str(_machines(leftover))
        shown.add_row(leftover.stack, state, clusters, machines, cost, leftover.result)
    return shown


def _state(leftover: Leftover) -> str:
    return standing(leftover.experiment) if leftover.experiment else "unknown"


def _machines(leftover: Leftover) -> int:
    return leftover.experiment.machines if leftover.experiment else 0


def _cost_usd(leftover: Leftover) -> float:
    return leftover.experiment.cost_usd if leftover.experiment else 0.0


def certificate(leftovers: Sequence[Leftover]) -> RenderableType:
    """What each stack holds, and below it one line: what is left in all, when, at what cost."""
    held = _held(leftovers)
    holds = f"{held} left" if held else "nothing is left"
    known = sum(leftover.experiment is not None for leftover in leftovers)
    which = ", the newest of each stack" if known > 1 else ""
    spent = f"spent ${sum(map(_cost_usd, leftovers)):,.2f} by {counted(known, 'experiment')}{which}"
    return Group(*_table_of(leftovers), f"{_moment()}: {holds}; {spent}.")


def plan(leftovers: Sequence[Leftover], command: str) -> RenderableType:
    """What `command` would do with each stack, which this did not."""
    held = f"{_held(leftovers) or 'nothing'} held"
    goes = any(leftover.result.startswith("to be") for leftover in leftovers)
    what = f"nothing was changed. Do it: {command}" if goes else "nothing would be released."
    return Group(*_table_of(leftovers), f"{_moment()}: {held}; {what}")


def _moment() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _table_of(leftovers: Sequence[Leftover]) -> list[Table]:
    return [table(leftovers)] if leftovers else []


def _held(leftovers: Sequence[Leftover]) -> str:
    """As `1 cluster and 2 machines`; "" if there is neither."""
    clusters, machines = sum(leftover.clusters for leftover in leftovers), sum(map(_machines, leftovers))
    return f"{counted(clusters, 'cluster')} and {counted(machines, 'machine')}" if clusters or machines else ""


class StackLeft(TypedDict):
    """What became of one stack."""

    stack: Annotated[str, "Name of the stack."]
    experiment_id: Annotated[str, "Id of its newest experiment; empty if the database knows none."]
    state: Annotated[str, "State of that experiment; `unknown` without one."]
    clusters_left: Annotated[int, "How many clusters the stack still declares."]
    result: Annotated[str, "What was done, or why nothing was done."]


class TeardownObject(TypedDict):
    """The certificate: what is left in all, when, and at what cost."""

    at: Annotated[str, "When the certificate was made, ISO 8601 in UTC."]
    clusters_left: Annotated[int, "How many clusters all these stacks still declare."]
    machines_left: Annotated[int, "How many machines their newest experiments hold."]
    cost_usd: Annotated[float, "What the newest experiment of each stack has cost, in US dollars."]
    stacks: Annotated[list[StackLeft], "One object for each stack."]


def as_object(leftovers: Sequence[Leftover]) -> TeardownObject:
    """The shape of `ems teardown --json`."""
    return {
        "at": datetime.now(UTC).isoformat(),
        "clusters_left": sum(leftover.clusters for leftover in leftovers),
        "machines_left": sum(map(_machines, leftovers)),
        "cost_usd": sum(map(_cost_usd, leftovers)),
        "stacks": [
            {
                "stack": leftover.stack,
                "experiment_id": leftover.experiment.id if leftover.experiment else "",
                "state": _state(leftover),
                "clusters_left": leftover.clusters,
                "result": leftover.result,
            }
            for leftover in leftovers
        ],
    }


def exit_code(leftovers: Sequence[Leftover]) -> int:
    """5 if something that was to go is still there."""
    return EngineError.exit_code if any(leftover.result.startswith("failed") for leftover in leftovers) else 0
