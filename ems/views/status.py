"""Where each experiment stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, TypedDict

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table

from ems.base.console import Text
from ems.databases import Experiment
from ems.lab.line import duration, took
from ems.node.agent.platform import RunPlatform

DULL = {"points": "", "failed": "0", "attempt": "1", "machines": "0", "cost": "$0.00"}  # in all rows: left out
NAMES, FOLDED = ("stack", "cluster", "project"), 14
NUMBERS = ("points", "failed", "rows", "attempt", "machines", "cost")
LEAST_FIRST = ("project", "cluster", "attempt", "cost", "machines", "took", "rows")
NOT_RECORDED = "not recorded"
COLOURS = {"succeeded": "green", "running": "cyan", "failed": "red", "lost": "yellow", "expired": "red"}


class StatusObject(TypedDict):
    """Where one experiment stands."""

    stack: Annotated[str, "Name of the stack."]
    experiment_id: Annotated[str, "Id of the experiment, a UUID."]
    state: Annotated[
        str,
        "`registered`, `provisioning`, `queued`, `running` or `lost`; or, finished: `succeeded`, `failed`, "
        "`cancelled` or `expired`.",
    ]
    attempt: Annotated[int, "Number of the newest run; 0 before the first."]
    points_done: Annotated[int, "How many points are stored."]
    points_total: Annotated[int, "How many points the grid has; 1 for a command."]
    points_failed: Annotated[int, "How many points have failed."]
    commit: Annotated[str, "Full hash of the commit whose code runs."]
    environment: Annotated[str, "Name of the environment."]
    experimenter: Annotated[str, "Who runs it: an experimenter of the lab."]
    project: Annotated[str, "A project of the lab."]
    funding: Annotated[str, "Who pays: a funding account of the lab."]
    cluster: Annotated[str, "Kind of place, or the stack of a persistent place."]
    machines_left: Annotated[int, "How many machines the experiment holds now."]
    cost_usd: Annotated[float, "Cost so far, in US dollars."]
    started_at: Annotated[str | None, "When the first run began, ISO 8601 in UTC; null before."]
    finished_at: Annotated[str | None, "When the experiment finished, ISO 8601 in UTC; null before."]
    error: Annotated[str, "Why it failed; empty if it did not."]
    platform: Annotated[
        RunPlatform | str,
        "What the newest run runs on; the text `not recorded` before the first run, or of one that an older EMS made.",
    ]


def status_object(experiment: Experiment) -> StatusObject:
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
        "platform": json.loads(experiment.platform) if experiment.platform else NOT_RECORDED,
    }


def status_page(experiments: Sequence[Experiment], width: int) -> RenderableType:
    """The table, and below it the errors in full; `experiments` has at least one, `width` is in characters."""
    errors = [
        Text(f"{experiment.registration.stack}: {experiment.error}", "red")
        for experiment in experiments
        if experiment.error
    ]
    return Group(status_table(experiments, width), *errors)


def status_table(experiments: Sequence[Experiment], width: int) -> Table:
    """A row each, of at least one experiment, in `width` characters; cost is in US dollars.

    Numbers stay whole, names are folded; what says nothing, and what does not fit, is left out.
    """
    rows = [_cells(experiment) for experiment in experiments]
    columns = [name for name in rows[0] if any(row[name] != DULL.get(name) for row in rows)]
    widths = {name: _width(name, rows) for name in columns}
    for name in LEAST_FIRST:
        if sum(widths.values()) + 2 * len(widths) > width:
            widths.pop(name, None)
    table = Table(title="Experiments", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, needed in widths.items():
        justify: JustifyMethod = "right" if name in NUMBERS else "left"
        fixed = None if name in NAMES else needed  # only names give way
        table.add_column(name, overflow="fold", min_width=needed, width=fixed, justify=justify)
    for row in rows:
        table.add_row(*(Text(row[name], COLOURS.get(row[name], "") if name == "state" else "") for name in widths))
    return table


def _width(name: str, rows: Sequence[Mapping[str, str]]) -> int:
    """What a column needs."""
    longest = max(len(name), *(len(row[name]) for row in rows))
    return min(longest, FOLDED) if name in NAMES else longest


def _cells(experiment: Experiment) -> dict[str, str]:
    row = experiment.registration
    return {
        "stack": row.stack,
        "state": str(experiment.state),
        "points": f"{experiment.points_done:,}/{row.points_total:,}" if row.points_total > 1 else "",
        "failed": f"{experiment.points_failed:,}",
        "rows": f"{experiment.rows_stored:,}",
        "attempt": str(experiment.attempt),
        "took": duration(took(experiment)) if experiment.started_at else "",
        "cluster": row.cluster,
        "machines": str(experiment.machines),
        "cost": f"${experiment.cost_usd:,.2f}",
        "project": row.project,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
