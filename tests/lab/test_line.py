"""A time, a duration and a run's progress in a few words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ems.databases import State
from ems.lab.line import ago, duration, last_heard, progress_line
from tests.views.drawing import FINISHED


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (-1, "now"),
        (4.9, "now"),
        (5, "5 s ago"),
        (119, "1 min ago"),
        (7199, "1 h ago"),
        (86_400, "1 day ago"),
        (86_399, "23 h ago"),
        (2 * 86_400, "2 days ago"),
        (60 * 86_400, "60 days ago"),
        (61 * 86_400, "2 months ago"),
        (1e8, "3 years ago"),
    ],
)
def test_how_long_ago(seconds: float, shown: str) -> None:
    assert ago(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (-1, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7620, "2 h 07 min"),
        (273_600, "3 d 04 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(timedelta(seconds=seconds)) == shown


def test_the_progress_line() -> None:
    running = replace(FINISHED, state=State.RUNNING, points_done=3, points_failed=1, attempt=2)
    assert progress_line(running).startswith("running · 3 of 8 points · 1 failed · 1,234 rows · attempt 2 · ")
    assert progress_line(replace(FINISHED, state=State.REGISTERED, started_at=None)) == "registered · 8 of 8 points"


def test_a_run_of_which_nothing_is_heard_says_since_when() -> None:
    heard = replace(FINISHED, state=State.RUNNING, heartbeat_at=datetime.now(UTC) - timedelta(days=2, hours=1))
    assert last_heard(heard) == "last heard 2 days ago"
    assert progress_line(heard).endswith(" · last heard 2 days ago")
    assert last_heard(replace(heard, heartbeat_at=datetime.now(UTC) - timedelta(minutes=4))) == ""
    assert last_heard(replace(heard, state=State.LOST)) == ""
