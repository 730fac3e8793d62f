"""Which experiments are shown, and in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ems.base.errors import UserError
from ems.databases import Experiment, State
from ems.lab.selection import Selection, changed_at, since
from tests.databases.cases import REGISTRATION

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def experiment(stack: str, state: State, hours_ago: float, **of: str) -> Experiment:
    """Registered a day before it changed last."""
    moment = NOW - timedelta(hours=hours_ago)
    counters = dict.fromkeys(("points_done", "points_failed", "rows_stored", "machines"), 0)
    return Experiment(
        registration=replace(REGISTRATION, stack=stack, **of),
        state=state,
        attempt=1,
        wanted_attempt=1,
        **counters,
        cost_usd=0.0,
        cancel_requested=False,
        registered_at=moment - timedelta(days=1),
        heartbeat_at=moment,
        finished_at=moment if state.finished else None,
    )


EXPERIMENTS = [
    experiment("a", State.SUCCEEDED, 30),
    experiment("b", State.RUNNING, 40, project="other"),
    experiment("c", State.FAILED, 1, experimenter="other"),
    experiment("d", State.LOST, 2),
]


@pytest.mark.parametrize(
    "selection, stacks",
    [
        (Selection(), "bcda"),
        (Selection(states=[State.FAILED, State.LOST]), "cd"),
        (Selection(project="other"), "b"),
        (Selection(experimenter="other"), "c"),
        (Selection(since=NOW - timedelta(hours=2)), "bcd"),
        (Selection(states=[State.SUCCEEDED], project="other"), ""),
    ],
)
def test_what_is_under_way_comes_first_then_what_changed_last(selection: Selection, stacks: str) -> None:
    assert "".join(each.registration.stack for each in selection.of(EXPERIMENTS)) == stacks


def test_a_name_that_no_experiment_has_is_refused_unless_there_are_none() -> None:
    with pytest.raises(UserError, match='No experiment is of the project "othr": did you mean other'):
        Selection(project="othr").of(EXPERIMENTS)
    assert Selection(project="othr").of([]) == []


def test_without_a_run_the_registration_counts() -> None:
    registered = replace(EXPERIMENTS[0], heartbeat_at=None, finished_at=None, state=State.REGISTERED)
    assert changed_at(registered) == registered.registered_at


@pytest.mark.parametrize("text, before", [("30min", 0.5), ("12 h", 12), ("2d", 48), (" 3w ", 504)])
def test_time_spans(text: str, before: float) -> None:
    assert since(text, NOW) == NOW - timedelta(hours=before)


def test_dates_are_local() -> None:
    assert since("2026-01-31", NOW) == datetime(2026, 1, 31).astimezone()
    assert since("2026-01-31T14:00+00:00", NOW) == NOW + timedelta(hours=2)


@pytest.mark.parametrize("text", ["2", "d", "2 days", "-2d", "1.5h", "31.1.2026", "0001-01-01"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--since is .*: neither a time span nor a date"):
        since(text, NOW)


@pytest.mark.parametrize("text", ["999999w", "999999999d"])
def test_a_span_without_a_date_at_its_begin_is_told_as_that(text: str) -> None:
    with pytest.raises(UserError, match="longer ago than any date"):
        since(text, NOW)
