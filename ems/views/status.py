"""Where each experiment stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from ems.databases import Experiment
from ems.views.line import duration

COLOURS = {"succeeded": "green", "running": "cyan", "failed": "red", "lost": "yellow", "expired": "red"}


def status_object(experiment: Experiment) -> dict[str, Any]:
    """The shape of `ems status --json`; times are ISO 8601 in UTC."""
    row = experiment.registration
    return {
        "stack": row.stack,
        "experiment_id": row.id,
        "state": str(experiment.state),
        "attempt": experiment.attempt,
        "points_done": experiment.points_done,
        "points_total": row.points_total,
        "points_failed": experiment.points_failed,
        "commit": row.commit,
        "environment": row.environment,
        "experimenter": row.experimenter,
        "project": row.project,
        "funding": row.funding,
        "cluster": row.cluster,
        "machines_left": experiment.machines,
        "cost_usd": experiment.cost_usd,
        "started_at": _iso(experiment.started_at),
        "finished_at": _iso(experiment.finished_at),
        "error": experiment.error,
    }


def status_table(experiments: Sequence[Experiment]) -> Table:
    table = Table(title="Experiments", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("stack", "state", "points", "rows", "attempt", "took", "cluster", "machines", "cost", "project"):
        table.add_column(name, no_wrap=name == "stack")
    for experiment in experiments:
        table.add_row(*_cells(experiment))
    return table


def _cells(experiment: Experiment) -> list[str]:
    row, state = experiment.registration, str(experiment.state)
    return [
        row.stack,
        f"[{COLOURS.get(state, 'default')}]{state}[/]",
        f"{experiment.points_done:,}/{row.points_total:,}",
        f"{experiment.rows_stored:,}",
        str(experiment.attempt),
        _took(experiment),
        row.cluster,
        str(experiment.machines),
        f"${experiment.cost_usd:,.2f}",
        row.project,
    ]


def _took(experiment: Experiment) -> str:
    if experiment.started_at is None:
        return ""
    return duration((experiment.finished_at or datetime.now(UTC)) - experiment.started_at)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
