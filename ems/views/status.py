"""Where each experiment stands."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypedDict

from rich.cells import cell_len
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table

from ems.base.console import Text
from ems.base.messages import counted, some
from ems.databases import IMPORTED, RETRYABLE, Experiment, State
from ems.lab.left import of_row
from ems.lab.line import ago, duration, failed_points, last_heard, standing, took, way_on
from ems.lab.selection import changed_at
from ems.node.agent.leftovers import FileLeft
from ems.node.agent.platform import RunPlatform
from ems.views import left
from ems.views.imported import ImportedObject, imported_object, origin_of

DULL = {"points": "", "failed": "", "attempt": "1", "machines": "0", "cost": "$0.00"}  # in all rows: left out
NAMES, FOLDED = ("stack", "cluster", "project"), 14
NUMBERS = ("points", "failed", "rows", "attempt", "machines", "cost")
LEAST_FIRST = ("project", "cluster", "attempt", "cost", "machines", "took", "rows", "changed")
NOT_RECORDED = "not recorded"
COLOURS: dict[str, str] = {
    **{State.SUCCEEDED: "green", State.PILOTED: "green", IMPORTED: "green", State.LOST: "yellow"},
    **{State.FAILED: "red", State.EXPIRED: "red"},
    **{State.CANCELLED: "magenta", State.RUNNING: "cyan", State.PROVISIONING: "cyan", State.QUEUED: "cyan"},
}
MOST_NAMED = 10
HELD = "Clusters that ended runs still declare: "


class StatusObject(TypedDict):
    """Where one experiment stands."""

    stack: Annotated[str, "Name of the stack."]
    experiment_id: Annotated[str, "Id of the experiment, a UUID."]
    state: Annotated[
        str,
        "`registered`, `provisioning`, `queued`, `running` or `lost`; or, finished: `piloted`, `succeeded`, `failed`, "
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
    cluster_declared: Annotated[bool, "Whether it has ended, and its stack still has a cluster: see `ems teardown`."]
    cost_usd: Annotated[float, "Cost so far, in US dollars."]
    started_at: Annotated[str | None, "When the first run began, ISO 8601 in UTC; null before."]
    finished_at: Annotated[str | None, "When the experiment finished, ISO 8601 in UTC; null before."]
    error: Annotated[str, "Why it failed; empty if it did not."]
    files_left: Annotated[list[FileLeft], "What its jobs left unread; `ems clean` removes it."]
    platform: Annotated[
        RunPlatform | str,
        "What the newest run runs on; the text `not recorded` before the first run, or of one that an older EMS made.",
    ]
    imported: Annotated[
        ImportedObject | None, "Where the rows come from, and what is known of them, if `ems import` brought them in."
    ]


def status_object(experiment: Experiment, *, declares: bool = False) -> StatusObject:
    """The shape of `ems status --json`; times are ISO 8601 in UTC. `declares`: its stack still has a cluster."""
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
        "cluster_declared": declares,
        "cost_usd": experiment.cost_usd,
        "started_at": _iso(experiment.started_at),
        "finished_at": _iso(experiment.finished_at),
        "error": experiment.error,
        "files_left": of_row(experiment),
        "platform": json.loads(experiment.platform) if experiment.platform else NOT_RECORDED,
        "imported": imported_object(experiment.registration),
    }


def status_page(
    experiments: Sequence[Experiment],
    width: int,
    *,
    total: int = 0,
    declaring: Sequence[str] = (),
    waits: str = "",
) -> RenderableType:
    """The table, and below it the errors, how many stand where, and what is still held.

    `experiments` has at least one, `width` is in characters. `total`: how many there are, of which these come first.
    `declaring`: the stacks among them that have ended and still have a cluster. `waits`: why the only one
    does not go on. Of one experiment the error is in full, of several its first line.
    """
    several = len(experiments) > 1
    errors = (_error(experiment, several=several) for experiment in experiments if experiment.error)
    silent = [f"{each.registration.stack}: {said}" for each in experiments if (said := last_heard(each))]
    below = [_summary(experiments, total)] if several else []
    if not several and experiments[0].state in RETRYABLE | {State.PILOTED}:
        below.append(Text(way_on(experiments[0]), "dim"))
    if waits:
        below.append(Text(waits))
    if not several and (origin := origin_of(experiments[0].registration)):
        below.append(origin)
    if not several:
        below += [Text(line) for line in left.lines(experiments[0])]
    if declaring:
        release = f"Release: ems teardown {' '.join(declaring[:MOST_NAMED])}"
        below.append(Text(f"{HELD}{some(declaring)}. {release}", "yellow"))
    below += [Text(line, "yellow") for line in silent]
    return Group(status_table(experiments, width), *errors, *below)


def status_table(experiments: Sequence[Experiment], width: int) -> Table:
    """A row each, of at least one experiment, in `width` characters; cost is in US dollars.

    Numbers stay whole, names are folded where a word of them ends; what says nothing, and what does not fit, is left
    out.
    """
    rows = [_cells(experiment) for experiment in experiments]
    columns = [name for name in rows[0] if any(row[name] != DULL.get(name) for row in rows)]
    longest = {name: max(len(name), *(cell_len(row[name]) for row in rows)) for name in columns}
    widths = {name: min(longest[name], FOLDED) if name in NAMES else longest[name] for name in columns}
    for name in LEAST_FIRST:
        if sum(widths.values()) + 2 * len(widths) > width:
            widths.pop(name, None)
    for name in (name for name in NAMES if name in widths):  # the stack's name first
        free = width - sum(widths.values()) - 2 * len(widths)
        widths[name] = max(widths[name], min(longest[name], widths[name] + free))
    table = Table(title="Experiments", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, needed in widths.items():
        justify: JustifyMethod = "right" if name in NUMBERS else "left"
        table.add_column(name, overflow="fold", width=needed, justify=justify)
    for row in rows:
        table.add_row(*(_cell(name, row[name], widths[name]) for name in widths))
    return table


def _cell(name: str, value: str, width: int) -> Text:
    text = "\n".join(folded(value, width)) if name in NAMES else value
    return Text(text, COLOURS.get(value, "") if name == "state" else "")


def folded(name: str, width: int) -> Iterator[str]:
    """Lines of at most `width` characters, broken after `-`, `_`, `.` or `/` where that can be."""
    line = ""
    for part in re.findall(r"[^-_./]+[-_./]?|[-_./]", name):
        if line and cell_len(line + part) > width:
            yield line
            line = ""
        line += part
    yield line


def _error(experiment: Experiment, *, several: bool) -> Text:
    error = experiment.error.splitlines()[0] if several else experiment.error
    return Text(f"{experiment.registration.stack}: {error}", COLOURS.get(experiment.state, ""))


def _summary(experiments: Sequence[Experiment], total: int) -> Text:
    """Such as `3 experiments: 1 running · 2 succeeded`."""
    numbers = Counter((standing(experiment), experiment.state) for experiment in experiments)
    parts = [Text(f"{number:,} {said}", COLOURS.get(state, "")) for (said, state), number in numbers.items()]
    text = Text(f"{counted(len(experiments), 'experiment')}: ").append(Text(" · ").join(parts))
    older = total - len(experiments)
    return text.append(f" · {older:,} older not shown: --limit {total}") if older > 0 else text


def _cells(experiment: Experiment) -> dict[str, str]:
    row = experiment.registration
    return {
        "stack": row.stack,
        "state": standing(experiment),
        "points": f"{experiment.points_done:,}/{row.points_total:,}" if row.points_total > 1 else "",
        "failed": f"{failed:,}" if (failed := failed_points(experiment)) else "",
        "rows": f"{experiment.rows_stored:,}",
        "attempt": str(experiment.attempt),
        "changed": ago(datetime.now(UTC) - changed_at(experiment)),
        "took": duration(took(experiment)) if experiment.started_at else "",
        "cluster": row.cluster,
        "machines": str(experiment.machines),
        "cost": f"${experiment.cost_usd:,.2f}",
        "project": row.project,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
