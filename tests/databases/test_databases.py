import itertools
from array import array
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.base import plugins
from ems.base.errors import DatabaseError, UserError
from ems.databases import Experiment, State, columns, connect, points, rules, states
from ems.databases import sql_marks as marks
from ems.spool.batch import Column
from tests.databases.cases import REGISTRATION, floats, ints, texts

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER, EARLIER = NOON + timedelta(seconds=1), NOON - timedelta(seconds=1)


def test_each_scheme_is_a_backend_and_helpers_are_none(tmp_path):
    assert "sqlite" in plugins.names("databases")
    for scheme in ("tables", "sql", "mysql", ""):
        with pytest.raises(UserError, match=r"no database of that kind(.|\n)*sqlite://"):
            connect(f"{scheme}:///x", tmp_path)


@pytest.mark.parametrize(
    ("stored", "lease", "deadline", "expected"),
    [
        (State.REGISTERED, None, None, State.REGISTERED),
        (State.RUNNING, LATER, None, State.RUNNING),
        (State.RUNNING, LATER, LATER, State.RUNNING),
        (State.RUNNING, NOON, LATER, State.LOST),
        (State.RUNNING, LATER, NOON, State.EXPIRED),
        (State.RUNNING, EARLIER, EARLIER, State.EXPIRED),
        (State.RUNNING, EARLIER, NOON, State.LOST),  # before its deadline: time without a run does not count
        (State.LOST, EARLIER, NOON, State.LOST),
        (State.PROVISIONING, EARLIER, NOON, State.PROVISIONING),
        (State.PROVISIONING, EARLIER, None, State.PROVISIONING),
        (State.SUCCEEDED, EARLIER, EARLIER, State.SUCCEEDED),
    ],
)
def test_the_effective_state(stored, lease, deadline, expected):
    assert states.effective(stored, lease, deadline, NOON) is expected


def test_the_deadline_is_what_earlier_runs_left():
    assert states.deadline(None, 0.0, NOON) is None
    assert states.deadline(2.0, 1800.0, NOON) == NOON + timedelta(minutes=90)


def test_hours_that_are_lifted_reopen_but_lowered_ones_do_not():
    limited = replace(REGISTRATION, max_hours=2.0)
    counters = {"points_done": 0, "points_failed": 0, "rows_stored": 0, "machines": 0, "cost_usd": 0.0}
    expired = Experiment(limited, State.EXPIRED, 1, 1, **counters, cancel_requested=False, registered_at=NOON)
    assert rules.reopened_by(expired, REGISTRATION)
    assert not rules.reopened_by(expired, replace(limited, max_hours=1.0))
    assert not rules.reopened_by(replace(expired, state=State.SUCCEEDED), replace(limited, attempt=5))


def test_what_a_batch_adds_and_widens():
    stored = {"i": "int64", "f": "float64", "n": "int64"}
    arriving = [floats("i", 0.5), ints("f", 1), floats("n", None), texts("t", "a")]
    assert columns.meet("t", stored, arriving) == columns.TableChange({"t": "text"}, ("i",))


def test_integers_fit_doubles_only_if_exact():
    exact = columns.as_stored("t", Column("x", "int64", array("q", [1, 2**53])), "float64")
    assert (exact.type, exact.values) == ("float64", [1.0, 2.0**53])
    with pytest.raises(DatabaseError, match=str(2**53 + 1)):
        columns.as_stored("t", ints("x", 2**53 + 1), "float64")


@pytest.mark.parametrize(
    ("points", "expected"),
    [((), []), ((7,), [(7, 7)]), ((3, 1, 2, 7, 2), [(1, 3), (7, 7)]), (range(10_000), [(0, 9_999)])],
)
def test_spans(points, expected):
    assert columns.spans(points) == expected


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_ranges_are_whole_and_what_is_left_of_them(points, others):
    found = list(columns.ranges(sorted(points)))
    assert {point for part in found for point in part} == points
    assert all(one.stop < other.start for one, other in itertools.pairwise(found))
    for part in found:
        left = marks.without(part, columns.spans(others))
        assert [point for rest in left for point in rest] == sorted(set(part) - others)
        assert all(left)


def test_pairs_come_in_mappings_of_bounded_size():
    pairs = [(n, n + 1) for n in range(51)] + [(0, 7), (0, 8)]
    found = list(points.chunks(iter(pairs), 50))
    assert [len(chunk) for chunk in found] == [50, 2, 1]
    assert [pair for chunk in found for pair in chunk.items()] == pairs
