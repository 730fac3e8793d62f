"""What the decisions about runs change, one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ems.base.errors import DatabaseError, FencedOut
from ems.databases import Project, State, rules, states
from tests.databases.cases import REGISTRATION
from tests.databases.memory import NOON


def spec_of(**job: object) -> str:
    return json.dumps({"limits": {}, "job": job}, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("key", ["sweep", "parameters"])
def test_what_is_computed_stays_as_it_was_recorded_first(key: str) -> None:
    first = replace(REGISTRATION, spec=spec_of(**{key: [1], "retries": 0}), points_total=17)
    again = replace(first, spec=spec_of(**{key: [1.0], "retries": 2}), points_total=11)
    change = rules.registered_again(rules.registered(first, NOON), again)
    assert change.experiment["spec"] == spec_of(**{key: [1], "retries": 2})
    assert change.experiment["points_total"] == 17


def test_a_spec_that_is_recorded_again_stays_canonical() -> None:
    first = replace(REGISTRATION, spec=spec_of(sweep=[1]))
    unordered = replace(first, spec='{"job": {"sweep": [2], "function": "f"}, "a": 1}')
    change = rules.registered_again(rules.registered(first, NOON), unordered)
    assert change.experiment["spec"] == '{"a":1,"job":{"function":"f","sweep":[1]}}'
    with pytest.raises(ValueError, match="Out of range float values"):
        rules.registered_again(rules.registered(first, NOON), replace(first, spec='{"job": {"x": NaN}}'))


def running(**changes: Any) -> dict[str, Any]:
    """The row of an experiment whose first run began half an hour ago and beats."""
    row = rules.registered(replace(REGISTRATION, max_hours=1.0), NOON)
    began = NOON - timedelta(hours=0.5)
    run = {"agent": "a", "claimed_at": began, "heartbeat_at": NOON, "lease_until": NOON + timedelta(seconds=9)}
    return row | run | {"run_state": State.RUNNING, "state": State.RUNNING, "attempt": 1, "used_s": 600.0} | changes


@pytest.mark.parametrize(
    "changes, moves",
    [
        ({}, True),
        ({"wanted_attempt": 2}, False),  # a run is due, which has its own deadline
        ({"state": State.FAILED, "run_state": State.FAILED, "finished_at": NOON}, False),
        ({"claimed_at": None, "run_state": None, "attempt": 0, "state": State.PROVISIONING}, False),
    ],
)
def test_changed_hours_move_the_deadline_of_a_run_that_is_under_way(changes: dict[str, Any], moves: bool) -> None:
    row = running(**changes)
    change = rules.registered_again(row, replace(REGISTRATION, max_hours=3.0))
    expected = {"deadline_at": NOON + timedelta(hours=3 - 0.5, seconds=-600)} if moves else {}
    assert {name: value for name, value in change.experiment.items() if name == "deadline_at"} == expected
    assert "deadline_at" not in rules.registered_again(row, replace(REGISTRATION, max_hours=1.0)).experiment


def test_a_run_describes_itself_while_its_claim_holds() -> None:
    row = running()
    assert rules.described(row, rules.claim_of(row), "{}") == rules.Change({"state": State.RUNNING}, {"platform": "{}"})
    with pytest.raises(FencedOut):
        rules.described(running(attempt=2), rules.claim_of(row), "{}")


def test_hours_that_are_used_up_leave_no_machines() -> None:
    row = rules.registered(replace(REGISTRATION, max_hours=1.0), NOON) | {"machines": 3, "used_s": 1800.0}
    row |= {"claimed_at": NOON - timedelta(hours=0.5), "heartbeat_at": NOON}
    change = rules.claimed(row, "a", 1.0)
    expired = {
        "state": State.EXPIRED,
        "machines": 0,
        "finished_at": NOON,
        "error": states.used_up_error(1.0, row["stack"]),
    }
    assert change and change.experiment == expired


def test_a_place_that_is_being_made_holds_machines() -> None:
    row = rules.registered(REGISTRATION, NOON) | dict.fromkeys(["run_state", *states.RUN]) | {"now": NOON}
    change = rules.provisioning(row, 3)
    assert change and change.experiment == {"state": State.PROVISIONING, "machines": 3}


@pytest.mark.parametrize("known, said", [([], "There are none yet."), (["a", "b"], "There are: a, b.")])
def test_choices_name_what_there_is(known: list[str], said: str) -> None:
    assert rules.choices(known) == said


@pytest.mark.parametrize(
    "parent, parents, problem",
    [
        (None, {}, None),
        ("top", {"top": None}, None),
        ("part", {"top": None, "part": "top"}, None),
        ("elsewhere", {"top": None}, "no parent 'elsewhere' in the database"),
        ("me", {}, "cannot lie below 'me'"),
        ("part", {"me": None, "part": "me"}, "cannot lie below 'part'"),
        ("deep", {"me": None, "part": "me", "deep": "part"}, "cannot lie below 'deep'"),
    ],
)
def test_projects_are_a_tree(parent: str | None, parents: dict[str, str | None], problem: str | None) -> None:
    project = Project("me", "A project", parent=parent)
    if problem is None:
        rules.check_parent(project, parents)
        return
    with pytest.raises(DatabaseError, match=problem):
        rules.check_parent(project, parents)
