"""Runs as they go on: progress, rate, time left, the end of the log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ems.databases import Experiment
from ems.lab import Lab
from ems.views.line import duration, progress_line

LOG_LINES, LOG_BYTES = 5, 4096


def page(lab: Lab, experiments: Sequence[Experiment]) -> RenderableType:
    """A bar and a line for each, and the last lines of the logs of those under way."""
    grid = Table.grid(padding=(0, 1))
    for experiment in experiments:
        row = experiment.registration
        bar = ProgressBar(total=row.points_total, completed=experiment.points_done + experiment.points_failed, width=30)
        grid.add_row(Text(row.stack, style="bold"), bar, Text(progress_line(experiment) + time_left(experiment)))
    logs = [_log(lab, experiment) for experiment in experiments if not experiment.state.finished]
    return Group(grid, *logs)


def time_left(experiment: Experiment, now: datetime | None = None) -> str:
    """Such as ` · 812 points/s · 2 min 05 s left`, by the mean since the start; "" where nothing can be said."""
    seen = experiment.points_done + experiment.points_failed
    if experiment.state.finished or not experiment.started_at or not seen or experiment.registration.points_total == 1:
        return ""
    elapsed_s = max(((now or datetime.now(UTC)) - experiment.started_at).total_seconds(), 1e-3)
    left = timedelta(seconds=(experiment.registration.points_total - seen) * elapsed_s / seen)
    return f" · {seen / elapsed_s:,.0f} points/s · {duration(left)} left"


def _log(lab: Lab, experiment: Experiment) -> Text:
    file = lab.run_dir(experiment.id) / "job.log"
    if not file.exists():
        return Text()
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - LOG_BYTES))
        lines = opened.read().decode("utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return Text("\n".join(lines), style="dim")
