"""One line that says how an experiment stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ems.base.messages import counted
from ems.databases import Experiment, State


def under_way(experiment: Experiment) -> bool:
    """Whether it is worth waiting for: neither finished nor lost."""
    return not experiment.state.finished and experiment.state is not State.LOST


def progress_line(experiment: Experiment) -> str:
    """Such as `running · 120 rows · 3 of 10 points · 14 s`."""
    parts = [str(experiment.state)]
    if experiment.registration.points_total > 1:
        parts.append(f"{experiment.points_done:,} of {experiment.registration.points_total:,} points")
    if experiment.points_failed:
        parts.append(f"{experiment.points_failed:,} failed")
    if experiment.state is not State.REGISTERED:
        parts.append(counted(experiment.rows_stored, "row"))
    if experiment.attempt > 1:
        parts.append(f"attempt {experiment.attempt}")
    if experiment.started_at:
        parts.append(duration(took(experiment)))
    return " · ".join(parts)


def took(experiment: Experiment) -> timedelta:
    """What its runs took together, the one under way up to now; zero before the first."""
    since = timedelta()
    if experiment.state is State.RUNNING and experiment.heartbeat_at:
        since = datetime.now(UTC) - experiment.heartbeat_at
    return timedelta(seconds=experiment.took_s) + max(since, timedelta())


def duration(delta: timedelta) -> str:
    """As `14 s`, `3 min 05 s` or `2 h 07 min`."""
    seconds = max(int(delta.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
