"""One line that says how an experiment stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ems.base.messages import counted
from ems.databases import IMPORTED, Experiment, State
from ems.node.job.variables import CHECKPOINT

GOES_ON = "it goes on by itself: ems status"
NOW_S = 5  # between two beats, and a little more
DAY_S = 86_400
SILENT_S = 300.0  # more than the longest lease: a run that is not lost by then keeps it at its place


def under_way(experiment: Experiment) -> bool:
    """Whether it is worth waiting for: neither finished nor lost."""
    return not experiment.state.finished and experiment.state is not State.LOST


def standing(experiment: Experiment) -> str:
    """Its state, or `imported` where that is how it came to be succeeded."""
    succeeded = experiment.state is State.SUCCEEDED
    return IMPORTED if succeeded and experiment.registration.imported else str(experiment.state)


def last_heard(experiment: Experiment) -> str:
    """As `last heard 2 days ago`, of a run whose place has not been reached for a while; "" of all others."""
    if experiment.state is not State.RUNNING or experiment.heartbeat_at is None:
        return ""
    silence = datetime.now(UTC) - experiment.heartbeat_at
    return f"last heard {ago(silence)}" if silence.total_seconds() > SILENT_S else ""


def progress_line(experiment: Experiment) -> str:
    """Such as `running · 120 rows · 3 of 10 points · 14 s`."""
    parts = [standing(experiment)]
    if experiment.registration.points_total > 1:
        parts.append(f"{experiment.points_done:,} of {experiment.registration.points_total:,} points")
    if failed_points(experiment):
        parts.append(f"{experiment.points_failed:,} failed")
    if experiment.state is not State.REGISTERED:
        parts.append(counted(experiment.rows_stored, "row"))
    if experiment.attempt > 1:
        parts.append(f"attempt {experiment.attempt}")
    if experiment.started_at:
        parts.append(duration(took(experiment)))
    return " · ".join([*parts, *filter(None, [last_heard(experiment)])])


def failed_points(experiment: Experiment) -> int:
    """How many points of its grid failed; a program has none."""
    return experiment.points_failed if experiment.registration.points_total > 1 else 0


def way_on(experiment: Experiment) -> str:
    """Where to look at one that did not succeed, and how to go on; of a pilot, only this."""
    if experiment.state is State.PILOTED:
        return f"Compute the rest: ems up {experiment.registration.stack}"
    if experiment.registration.imported:
        return "Repeat the import: ems import SOURCE --as " + experiment.registration.stack
    stack, look = experiment.registration.stack, "failures" if failed_points(experiment) else "logs"
    kept = " from its checkpoint" if f'"{CHECKPOINT}/"' in experiment.files_left else ""
    go_on = "" if experiment.state is State.EXPIRED else f"; go on{kept} with `ems up {stack} --retry`"
    return f"See `ems {look} {stack}`{go_on}."


def took(experiment: Experiment) -> timedelta:
    """What its runs took together, the one under way up to now; zero before the first."""
    since = timedelta()
    if experiment.state is State.RUNNING and experiment.heartbeat_at:
        since = datetime.now(UTC) - experiment.heartbeat_at
    return timedelta(seconds=experiment.took_s) + max(since, timedelta())


def ago(delta: timedelta) -> str:
    """As `now`, `14 s ago`, `3 min ago`, `2 h ago`, `5 days ago`, `8 months ago` or `3 years ago`."""
    seconds = int(delta.total_seconds())
    if seconds < NOW_S:
        return "now"
    for unit_s, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if seconds < 60 * unit_s and seconds < DAY_S:
            return f"{seconds // unit_s} {unit} ago"
    days = seconds // DAY_S
    for unit_days, unit in ((365.25, "year"), (30.44, "month"), (1, "day")):
        if days >= 2 * unit_days:
            return f"{counted(int(days / unit_days), unit)} ago"
    return "1 day ago"


def duration(delta: timedelta) -> str:
    """As `14 s`, `3 min 05 s`, `2 h 07 min` or `3 d 04 h`."""
    seconds = max(int(delta.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    if seconds < 3 * DAY_S:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
    return f"{seconds // DAY_S:,} d {seconds % DAY_S // 3600:02} h"
