"""The promises about runs: claims, beats, and how they end."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from ems.base.errors import DatabaseError, FencedOut
from ems.databases import (
    Claim,
    Outcome,
    State,
)
from tests.databases.cases import (
    LONG_S,
    REGISTRATION,
    WORKERS,
    DatabaseCase,
    assert_fenced,
    batch,
    claim_elsewhere,
    claimed,
    empty,
    failed,
    ints,
    now,
    states,
    table,
)

PLATFORM = json.dumps({"cpu": "a CPU’s name", "flags": [f"flag{n}" for n in range(300)]})


class RunsContract(DatabaseCase):
    def test_claim_starts_a_run(self, database):
        claim = claimed(database)
        found = now(database)
        assert claim == Claim("5f0c", 1, "digits", None)
        assert (found.state, found.attempt, found.machines, found.agent) == (State.RUNNING, 1, 1, "a")
        assert found.started_at == found.heartbeat_at is not None

    def test_a_lease_keeps_others_out(self, database, connect_again):
        claimed(database)
        assert connect_again().claim("5f0c", agent="b", lease_s=LONG_S) is None
        assert now(database).attempt == 1

    def test_the_same_agent_takes_over_and_fences_the_old_run(self, database):
        old = claimed(database)
        new = claimed(database)
        assert (new.attempt, new.cancel) == (2, False)
        assert_fenced(database, old)
        database.store(new, batch([0], ints("x", 1)))

    def test_a_request_to_cancel_holds_until_a_person_reopens(self, database):
        """Also where the run dies before it hears it: the next one is told, as it stores what is left and ends."""
        claimed(database)
        database.request_cancel("5f0c")
        heir = claimed(database)
        assert heir.cancel and now(database).cancel_requested and database.beat(heir, LONG_S).cancel
        database.release(heir, Outcome(State.CANCELLED, 0, 0))
        database.reopen("5f0c")
        again = claimed(database)
        assert not again.cancel and not database.beat(again, LONG_S).cancel

    def test_a_pilot_goes_on_when_more_points_are_wanted(self, database):
        """Without a new opening: failed points are not due again."""
        pilot = claimed(database, pilot=3)
        database.store(pilot, batch([0, 5], ints("x", 1, 2), marks=(failed(7),)))
        database.release(pilot, Outcome(State.PILOTED, 2, 1))
        database.release(pilot, Outcome(State.PILOTED, 2, 1))
        found = now(database)
        assert (found.state, found.state.finished, found.machines) == (State.PILOTED, True, 0)
        assert (found.points_done, found.points_failed, found.registration.pilot) == (2, 1, 3)
        assert database.claim("5f0c", agent="a", lease_s=LONG_S) is None
        for pilot_again in (3, 2):
            assert database.register(replace(REGISTRATION, pilot=pilot_again)).state is State.PILOTED
        assert database.reopen("5f0c").state is State.PILOTED
        assert database.request_cancel("5f0c").state is State.PILOTED
        assert_fenced(database, pilot)
        assert database.register(replace(REGISTRATION, pilot=4)).state is State.REGISTERED
        assert database.register(replace(REGISTRATION, max_hours=1.0)).deadline_at is None
        whole = claimed(database)
        found = now(database)
        assert (found.attempt, found.wanted_attempt, found.registration.pilot) == (2, 1, None)
        assert states(database) == {"stored": [0, 5], "failed": [7]}
        database.release(whole, Outcome(State.SUCCEEDED, 8, 0))
        assert database.register(replace(REGISTRATION, pilot=5)).state is State.SUCCEEDED

    @pytest.mark.parametrize("more", [None, 5])
    def test_a_pilot_of_which_more_is_wanted_while_it_ends_goes_on(self, database, more):
        pilot = claimed(database, pilot=3)
        database.register(replace(REGISTRATION, pilot=more))
        database.release(pilot, Outcome(State.PILOTED, 3, 0))
        assert now(database).state is State.REGISTERED
        assert claimed(database, pilot=more).attempt == 2

    def test_the_results_table_of_a_run_under_way_stays(self, database):
        claim = claimed(database)
        found = database.register(replace(REGISTRATION, results_table="elsewhere"))
        assert found.registration.results_table == "digits"
        database.store(claim, batch([0], ints("x", 1)))
        assert table(database)["x"] == [1]

    def test_a_lapsed_lease_reads_lost_and_may_be_claimed(self, database):
        old = claimed(database, lease_s=0)
        assert now(database).state is State.LOST
        assert claimed(database, agent="b").attempt == 2
        assert_fenced(database, old)

    def test_a_beat_revives_a_lapsed_lease_that_nobody_took(self, database):
        claim = claimed(database, lease_s=0)
        database.set_provisioning("5f0c", 2)
        database.beat(claim, LONG_S, points_done=3, points_failed=1)
        found = now(database)
        assert (found.state, found.points_done, found.points_failed) == (State.RUNNING, 3, 1)
        assert database.claim("5f0c", agent="b", lease_s=LONG_S) is None

    def test_claims_raced_by_threads_have_one_winner(self, database, connect_again):
        database.register(REGISTRATION)
        clients = [connect_again() for _ in range(16)]
        barrier, won = threading.Barrier(16), []

        def race(number: int) -> None:
            barrier.wait()
            claim = clients[number].claim("5f0c", agent=f"agent-{number}", lease_s=LONG_S)
            if claim:
                won.append(f"agent-{number}")

        threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [now(database).agent]

    def test_claims_raced_by_processes_have_one_winner(self, database, address, processes):
        database.register(REGISTRATION)
        racing = [processes.submit(claim_elsewhere, address, f"agent-{n}") for n in range(WORKERS * 4)]
        won = [future.result() for future in racing]
        assert sorted(number for number in won if number is not None) == [1]

    def test_an_unknown_experiment_is_named(self, database):
        ghost = Claim("ghost", 1, "digits", None)
        calls = [
            lambda: database.claim("ghost", agent="a", lease_s=1),
            lambda: database.beat(ghost, 1),
            lambda: database.store(ghost, batch([])),
            lambda: database.set_provisioning("ghost", 1),
            lambda: database.mark_destroyed("ghost"),
            lambda: list(database.results("ghost")),
            lambda: list(database.points("ghost")),
            lambda: list(database.failures("ghost")),
            lambda: list(database.origins("ghost")),
            lambda: database.copy_points(claimed(database), "ghost", [(0, 0)]),
        ]
        for call in calls:
            with pytest.raises(DatabaseError, match="no experiment 'ghost'"):
                call()
        assert database.request_cancel("ghost") is None

    def test_provisioning_only_while_no_run_holds_it(self, database):
        database.register(REGISTRATION)
        database.set_provisioning("5f0c", 4)
        assert (now(database).state, now(database).machines) == (State.PROVISIONING, 4)
        claim = claimed(database)
        database.set_provisioning("5f0c", 4)
        assert (now(database).state, now(database).machines) == (State.RUNNING, 1)
        database.release(claim, Outcome(State.SUCCEEDED, 8, 0))
        database.set_provisioning("5f0c", 4)
        assert (now(database).state, now(database).machines) == (State.SUCCEEDED, 0)

    # Ends

    def test_describe_says_on_what_the_newest_run_runs(self, database, connect_again):
        claim = claimed(database)
        assert now(database).platform == ""
        for platform in ('{"cpu": 1}', PLATFORM, PLATFORM):
            database.describe(claim, platform)
            assert now(connect_again()).platform == platform
        database.beat(claim, LONG_S, points_done=1)
        database.release(claim, Outcome(State.CANCELLED, 1, 0))
        with pytest.raises(FencedOut):
            database.describe(claim, "{}")
        assert database.reopen("5f0c").platform == PLATFORM
        again = claimed(database, agent="b")
        assert now(database).platform == ""
        assert_fenced(database, claim)
        assert {run["attempt"]: run["platform"] for run in database.rows("run")} == {1: PLATFORM, 2: ""}
        database.describe(again, "{}")
        assert {run["attempt"]: run["platform"] for run in database.rows("run")} == {1: PLATFORM, 2: "{}"}

    def test_release_ends_the_run_once(self, database):
        claim = claimed(database)
        outcome = Outcome(State.FAILED, 6, 2, exit_code=3, error="2 points failed", log_tail="…end", cost_usd=1.5)
        outcome = replace(outcome, cost_basis="estimated")
        database.release(claim, outcome)
        database.release(claim, outcome)
        found = now(database)
        assert (found.state, found.points_done, found.points_failed) == (State.FAILED, 6, 2)
        assert (found.error, found.log_tail, found.cost_usd, found.machines) == ("2 points failed", "…end", 1.5, 0)
        assert found.finished_at is not None
        assert [(each["usd"], each["basis"]) for each in database.rows("charge")] == [(1.5, "estimated")]
        assert database.claim("5f0c", agent="b", lease_s=LONG_S) is None
        with pytest.raises(FencedOut):
            database.release(claim, replace(outcome, state=State.SUCCEEDED))

    def test_what_a_run_cost_is_corrected(self, database):
        database.release(claimed(database), Outcome(State.LOST, 1, 0, cost_usd=1.0, cost_basis="estimated"))
        database.release(claimed(database, agent="b"), Outcome(State.SUCCEEDED, 8, 0, cost_usd=2.0))
        for _ in range(2):
            database.recharge("5f0c", 1, 4.5, "accounting")
        database.recharge("5f0c", 3, 9.0, "accounting")  # a run that was never charged
        charges = {row["attempt"]: (row["usd"], row["basis"], row["funding"]) for row in database.rows("charge")}
        assert charges == {1: (4.5, "accounting", "grant"), 2: (2.0, "", "grant")}
        assert (now(database).cost_usd, now(database).state) == (6.5, State.SUCCEEDED)

    def test_what_jobs_left_is_noted_until_it_is_cleaned(self, database):
        database.note_left("5f0c", database.register(REGISTRATION).files_left)
        assert now(database).files_left == ""
        database.release(claimed(database), Outcome(State.FAILED, 0, 1, files_left='[{"name": "é"}]'))
        database.reopen("5f0c")
        assert claimed(database, agent="b") and now(database).files_left == '[{"name": "é"}]'
        for _ in range(2):
            database.note_left("5f0c", "")
            assert now(database).files_left == ""
        with pytest.raises(DatabaseError, match="no experiment 'other'"):
            database.note_left("other", "")

    def test_a_job_without_rows_has_no_table(self, database):
        without = {"results_table": ""}
        claim = claimed(database, **without)
        database.store(claim, batch([], replaces=(0,)))
        database.store(claim, batch([], marks=(empty(1),)))
        with pytest.raises(DatabaseError, match=r"results: none(.|\n)*results: \{table: NAME\}"):
            database.store(claim, batch([0], ints("x", 1)))
        database.release(claim, Outcome(State.SUCCEEDED, 1, 0))
        assert (now(database).rows_stored, list(database.results("5f0c"))) == (0, [])
        assert states(database) == {"empty": [1]}
        assert database.copy_points(claimed(database, id="other", **without), "5f0c", [(1, 3)]) == 1
        assert database.check().faults == ()

    def test_costs_of_all_runs_add_up(self, database):
        database.release(claimed(database), Outcome(State.LOST, 1, 0, cost_usd=1.0))
        assert (now(database).state, now(database).finished_at) == (State.LOST, None)
        database.release(claimed(database, agent="b"), Outcome(State.SUCCEEDED, 8, 0, cost_usd=2.0))
        assert (now(database).attempt, now(database).cost_usd) == (2, 3.0)

    def test_a_run_cannot_end_as_running(self, database):
        with pytest.raises(ValueError, match="cannot end as running"):
            database.release(claimed(database), Outcome(State.RUNNING, 0, 0))

    def test_results_of_a_finished_experiment_do_not_change(self, database):
        claim = claimed(database)
        database.store(claim, batch([0], ints("x", 1)))
        database.release(claim, Outcome(State.SUCCEEDED, 1, 0))
        assert_fenced(database, claim)
        assert table(database)["x"] == [1]

    def test_cancel_reaches_a_live_run(self, database, connect_again):
        claim = claimed(database)
        assert not database.beat(claim, LONG_S).cancel
        assert connect_again().request_cancel("5f0c").state is State.RUNNING
        assert database.beat(claim, LONG_S).cancel
        database.release(claim, Outcome(State.CANCELLED, 1, 0))
        assert database.request_cancel("5f0c").state is State.CANCELLED

    def test_cancel_without_a_live_run_is_at_once(self, database):
        database.register(REGISTRATION)
        database.set_provisioning("5f0c", 3)
        found = database.request_cancel("5f0c")
        assert (found.state, found.machines) == (State.CANCELLED, 0)
        assert found.finished_at is not None
        claim = claimed(database, id="other", lease_s=0)
        assert database.request_cancel("other").state is State.CANCELLED
        with pytest.raises(FencedOut):
            database.store(claim, batch([0], ints("x", 1)))

    def test_destroyed_is_marked_and_the_record_stays(self, database):
        database.release(claimed(database), Outcome(State.SUCCEEDED, 8, 0))
        database.mark_destroyed("5f0c")
        first = now(database)
        database.mark_destroyed("5f0c")
        assert first.destroyed_at is not None
        assert now(database) == first
