"""The promises of `Database` about runs, held by the decisions themselves in random histories, without a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ems.base.errors import FencedOut
from ems.databases import FINISHED, RETRYABLE, Claim, Outcome, State, rules, states
from tests.databases.cases import LONG_S, REGISTRATION
from tests.databases.memory import Calls, Memory

AGENTS = st.sampled_from("ab")
LEASES_S = st.sampled_from([0.0, LONG_S])
HOURS = st.sampled_from([None, 0.5, 2.0, 8.0])
PILOTS = st.sampled_from([None, 2, 9])
MINUTES = st.sampled_from([-45, 1, 40, 150])  # of which some outlast a lease, or hours
ENDS = st.sampled_from([State.LOST, State.LOST, State.LOST, *sorted(FINISHED)])
FROZEN = ("points_done", "points_failed", "rows_stored", "cost_usd", "error", "log_tail", "finished_at", "machines")


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def calls(memory) -> Calls:
    made = Calls(memory)
    made.register(REGISTRATION)
    return made


def claimed(calls: Calls, agent: str = "a") -> Claim:
    claim = calls.claim(REGISTRATION.id, agent=agent, lease_s=LONG_S)
    assert claim is not None
    return claim


def test_of_two_claims_one_wins(calls):
    claimed(calls, "a")
    assert calls.claim(REGISTRATION.id, agent="b", lease_s=LONG_S) is None


def test_changed_hours_give_no_deadline_to_a_run_that_is_due(calls, memory):
    calls.release(claimed(calls), Outcome(State.FAILED, 0, 1))
    calls.reopen(REGISTRATION.id)
    memory.now += timedelta(days=1)
    found = calls.register(replace(REGISTRATION, max_hours=2.0))
    assert (found.state, found.deadline_at) == (State.REGISTERED, None)
    assert claimed(calls).deadline_at == memory.now + timedelta(hours=2)


class Histories(RuleBasedStateMachine):
    """`live`: the claim that should hold now, `cancelling`: whether its run should hear so; kept by the test alone."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.calls = Calls(self.memory)
        self.claims: list[Claim] = []
        self.releases: list[tuple[Claim, Outcome]] = []
        self.live: Claim | None = None
        self.cancelling = False

    @property
    def row(self) -> dict[str, Any]:
        row = self.memory.find(REGISTRATION.id)
        assert row is not None
        return row

    @property
    def state(self) -> State:
        return states.experiment_of(self.row).state

    def unchanged(self, call: Callable[[], object]) -> None:
        before = self.memory.everything()
        with pytest.raises(FencedOut):
            call()
        assert self.memory.everything() == before

    # What happens

    @initialize(hours=HOURS)
    def begin(self, hours: float | None) -> None:
        self.calls.register(replace(REGISTRATION, max_hours=hours))
        self.seen = self.row

    @rule(minutes=MINUTES)
    def the_clock_goes_on_or_is_set_back(self, minutes: int) -> None:
        self.memory.now += timedelta(minutes=minutes)

    @rule(
        hours=HOURS,
        attempt=st.integers(1, 4),
        commit=st.sampled_from(["c" * 40, "d" * 40]),
        table=st.sampled_from(["digits", "elsewhere"]),
        pilot=PILOTS,
    )
    def register(self, hours: float | None, attempt: int, commit: str, table: str, pilot: int | None) -> None:
        before, was = self.row, self.state
        table = before["results_table"] if before["rows_stored"] else table  # else it is refused
        raised = before["max_hours"] is not None and (hours is None or hours > before["max_hours"])
        again = attempt > max(before["attempt"], before["wanted_attempt"])
        changes: dict[str, Any] = {"max_hours": hours, "attempt": attempt, "commit": commit, "results_table": table}
        wanted = replace(REGISTRATION, pilot=pilot, **changes)
        found = self.calls.register(wanted)
        assert (found.registration.max_hours, found.destroyed_at) == (hours, None)
        assert found.registration.commit == (before["commit"] if before["attempt"] else commit)
        assert found.registration.results_table == (before["results_table"] if self.live else table)
        if was is State.PILOTED and (pilot is None or pilot > (before["pilot"] or 0)):
            self.cancelling = False
            self.goes_on_after_a_pilot(before)
        elif was in RETRYABLE and (again or (was is State.EXPIRED and raised)):
            self.reopened(before)
        else:
            self.went_on(before, was, hours_changed=hours != before["max_hours"])

    @precondition(lambda self: self.state in RETRYABLE)
    @rule()
    def reopen(self) -> None:
        before = self.row
        self.calls.reopen(REGISTRATION.id)
        self.reopened(before)

    @precondition(lambda self: self.state not in RETRYABLE)
    @rule()
    def reopen_what_goes_on_or_succeeded(self) -> None:
        before = self.row
        self.calls.reopen(REGISTRATION.id)
        assert self.row == before

    @rule(machines=st.integers(0, 3))
    def provision(self, machines: int) -> None:
        before, was = self.row, self.state
        self.calls.set_provisioning(REGISTRATION.id, machines)
        if was.finished or states.is_held(before):
            assert self.row == before
        self.went_on(before, was)

    @rule()
    def cancel(self) -> None:
        before, was = self.row, self.state
        found = self.calls.request_cancel(REGISTRATION.id)
        assert found == states.experiment_of(self.row)
        if was.finished:
            assert self.row == before
        elif states.is_held(before):
            self.cancelling = True
        else:
            assert (self.row["state"], self.row["machines"]) == (State.CANCELLED, 0)
            self.live = None
        self.went_on(before, was)

    @rule()
    def destroy(self) -> None:
        before, was = self.row, self.state
        self.calls.mark_destroyed(REGISTRATION.id)
        assert self.row["destroyed_at"] == (before["destroyed_at"] or self.memory.now)
        self.went_on(before, was)

    @rule(agent=AGENTS, lease_s=LEASES_S)
    def claim(self, agent: str, lease_s: float) -> None:
        before, was = self.row, self.state
        used = sum((max(run["heartbeat_at"] - run["claimed_at"], timedelta()) for run in self.memory.runs), timedelta())
        left = None if before["max_hours"] is None else timedelta(hours=before["max_hours"]) - used
        claim = self.calls.claim(REGISTRATION.id, agent=agent, lease_s=lease_s)
        if was.finished or (states.is_held(before) and before["agent"] != agent):
            assert claim is None and self.row == before
        elif left is not None and left <= timedelta():
            assert claim is None and self.row["state"] == State.EXPIRED and "max_hours" in self.row["error"]
            self.live = None
        else:
            assert claim is not None and claim.attempt == before["attempt"] + 1
            assert claim.deadline_at == (None if left is None else self.memory.now + left)
            assert (self.state, self.row["error"], self.row["machines"]) == (State.RUNNING, "", 1) or lease_s == 0
            assert claim.cancel == self.cancelling
            self.live = claim
            self.claims.append(claim)
        self.went_on(before, was, claimed=claim is not None)

    def any_claim(self, data: st.DataObject) -> Claim:
        """Mostly the newest: others are of zombies."""
        return data.draw(st.one_of(st.just(self.claims[-1]), st.sampled_from(self.claims)))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), lease_s=LEASES_S, more=st.integers(0, 5), failed=st.integers(0, 3))
    def beat(self, data: st.DataObject, lease_s: float, more: int, failed: int) -> None:
        claim, before, was = self.any_claim(data), self.row, self.state
        done = before["points_done"] + more
        if claim != self.live:
            self.unchanged(lambda: self.calls.beat(claim, lease_s, done, failed))
            return
        heard = self.calls.beat(claim, lease_s, done, failed)
        assert (heard.cancel, heard.deadline_at) == (self.cancelling, before["deadline_at"])
        is_due = before["wanted_attempt"] > claim.attempt
        until = before["deadline_at"]
        assert heard.expired == (is_due or (until is not None and until <= self.memory.now))
        assert self.row["state"] == (before["state"] if is_due else State.RUNNING)
        assert (self.row["points_done"], self.row["points_failed"]) == (done, failed)
        assert self.row["lease_until"] == self.memory.now + timedelta(seconds=lease_s)
        self.went_on(before, was, reported=True)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), rows=st.integers(0, 5))
    def store(self, data: st.DataObject, rows: int) -> None:
        claim = self.any_claim(data)
        if claim != self.live:
            self.unchanged(lambda: rules.check_fence(self.row, claim))
            return
        rules.check_fence(self.row, claim)
        self.memory.experiment["rows_stored"] += rows

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), end=ENDS, more=st.integers(0, 5), cost_usd=st.integers(0, 9))
    def release(self, data: st.DataObject, end: State, more: int, cost_usd: int) -> None:
        claim, before, was = self.any_claim(data), self.row, self.state
        outcome = Outcome(end, before["points_done"] + more, 0, error=f"as {end}", cost_usd=cost_usd)
        if (claim, end) in [(released, how.state) for released, how in self.releases]:
            self.calls.release(claim, outcome)
            assert self.row == before
        elif claim != self.live:
            self.unchanged(lambda: self.calls.release(claim, outcome))
        else:
            self.calls.release(claim, outcome)
            self.live = None
            self.releases.append((claim, outcome))
            is_due = before["wanted_attempt"] > claim.attempt
            assert (self.row["points_done"], self.row["machines"]) == (outcome.points_done, 0)
            is_more = before["pilot"] is None or before["pilot"] > outcome.points_done
            if end is State.PILOTED and is_more and not is_due:
                self.goes_on_after_a_pilot(
                    {**before, "points_done": outcome.points_done, "cost_usd": self.row["cost_usd"]}
                )
            else:
                over = State.EXPIRED if (end, was) == (State.LOST, State.EXPIRED) else end  # it stays over
                assert self.row["state"] == (before["state"] if is_due else over)
                self.went_on(before, was, reported=True)

    @precondition(lambda self: self.releases)
    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        before = self.memory.everything()
        self.calls.release(*data.draw(st.sampled_from(self.releases)))
        assert self.memory.everything() == before

    # What is promised

    def reopened(self, before: dict[str, Any]) -> None:
        """The next run is due, and the commit, results and costs of those before stay."""
        assert (self.row["state"], self.row["wanted_attempt"]) == (State.REGISTERED, before["attempt"] + 1)
        assert (self.row["error"], self.row["finished_at"], self.row["points_failed"]) == ("", None, 0)
        for name in ("attempt", "points_done", "rows_stored", "cost_usd"):
            assert self.row[name] == before[name]
        self.cancelling = False

    def goes_on_after_a_pilot(self, before: dict[str, Any]) -> None:
        """No new opening: what failed stays so."""
        found = (self.row["state"], self.row["error"], self.row["finished_at"], self.row["deadline_at"])
        assert found == (State.REGISTERED, "", None, None)
        for name in ("attempt", "wanted_attempt", "points_done", "rows_stored", "cost_usd"):
            assert self.row[name] == before[name]

    def went_on(
        self,
        before: dict[str, Any],
        was: State,
        *,
        hours_changed: bool = False,
        claimed: bool = False,
        reported: bool = False,
    ) -> None:
        """Whatever was called but a reopening."""
        after = self.row
        if was.finished:
            assert self.state.finished
        if State(before["state"]).finished:
            assert {name: after[name] for name in ("state", *FROZEN)} == {
                name: before[name] for name in ("state", *FROZEN)
            }
        if not (hours_changed or claimed):
            assert after["deadline_at"] == before["deadline_at"]
        if not reported:
            assert (after["points_done"], after["cost_usd"]) == (before["points_done"], before["cost_usd"])
        assert after["wanted_attempt"] == before["wanted_attempt"]

    @invariant()
    def no_counter_goes_back(self) -> None:
        if not self.memory.experiment:
            return
        for name in ("attempt", "wanted_attempt", "rows_stored", "points_done", "cost_usd"):
            assert self.row[name] >= self.seen[name], name
        assert self.row["wanted_attempt"] <= self.row["attempt"] + 1
        self.seen = self.row

    @invariant()
    def at_most_one_claim_holds(self) -> None:
        assert [claim for claim in self.claims if self.holds(claim)] == ([self.live] if self.live else [])
        running = [run["attempt"] for run in self.memory.runs if run["state"] == State.RUNNING]
        assert running == ([self.live.attempt] if self.live else [])

    def holds(self, claim: Claim) -> bool:
        try:
            rules.check_fence(self.row, claim)
        except FencedOut:
            return False
        return True

    @invariant()
    def a_request_to_cancel_holds_until_a_reopening(self) -> None:
        if self.memory.experiment:
            assert self.row["cancel_requested"] == self.cancelling

    @invariant()
    def each_released_run_is_charged_once(self) -> None:
        assert list(self.memory.charges) == [claim.attempt for claim, _ in self.releases]
        if self.memory.experiment:
            assert self.row["cost_usd"] == sum(charge["usd"] for charge in self.memory.charges.values())

    @invariant()
    def what_the_runs_took_is_known_from_the_row(self) -> None:
        if self.memory.experiment:
            each = [max(run["heartbeat_at"] - run["claimed_at"], timedelta()) for run in self.memory.runs]
            assert states.took_s(self.row) == pytest.approx(sum(each, timedelta()).total_seconds())

    @invariant()
    def a_run_that_is_due_has_no_deadline(self) -> None:
        if self.memory.experiment and self.row["state"] == State.REGISTERED:
            assert self.row["deadline_at"] is None

    @invariant()
    def what_is_finished_holds_no_machines(self) -> None:
        if self.memory.experiment and State(self.row["state"]).finished:
            assert self.row["machines"] == 0 and self.row["finished_at"] is not None


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
