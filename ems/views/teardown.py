"""What finished stacks still hold, and the certificate that nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from ems.lifecycle import Leftover


def table(leftovers: Sequence[Leftover]) -> Table:
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
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    left = sum(leftover.clusters for leftover in leftovers)
    machines = sum(leftover.experiment.machines for leftover in leftovers)
    cost = sum(leftover.experiment.cost_usd for leftover in leftovers)
    holds = "nothing is left" if not left and not machines else f"{left} clusters, {machines} machines are left"
    return Group(table(leftovers), f"{moment}: {holds}; spent ${cost:,.2f} by {len(leftovers)} experiments.")


def as_object(leftovers: Sequence[Leftover]) -> dict[str, Any]:
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


def exit_code(leftovers: Sequence[Leftover], *, dry_run: bool) -> int:
    """5 if something that was to go is still there."""
    return 5 if not dry_run and any(leftover.result.startswith("failed") for leftover in leftovers) else 0
