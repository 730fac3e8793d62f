"""The promises about a lab's rows, its experiments and their runs."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial

import pytest

from ems.base.errors import DatabaseError
from ems.databases import (
    LONG,
    ClusterRow,
    Experimenter,
    Funding,
    Outcome,
    Project,
    State,
    rules,
)
from tests.databases.cases import (
    LONG_S,
    REGISTRATION,
    WORKERS,
    DatabaseCase,
    at_once,
    batch,
    claimed,
    create_elsewhere,
    ints,
    now,
)
from tests.processes import eventually


def assert_newest(database, stacks) -> None:
    """As all experiments say."""
    first = {}
    for each in database.experiments():
        registration = replace(each.registration, spec="")
        first.setdefault(
            registration.stack, replace(each, registration=registration, log_tail="", platform="", files_left="")
        )
    assert database.newest() == list(first.values())
    assert database.newest(stacks) == [each for each in first.values() if each.registration.stack in stacks]


def spec_of(job: dict) -> str:
    return json.dumps({"job": job}, sort_keys=True, separators=(",", ":"))


class RegistryContract(DatabaseCase):
    changes_of_stacks = 40

    # Creating

    def test_without_tables_every_call_names_the_command(self, address, connect_again):
        calls = [
            lambda d: d.experiments(),
            lambda d: d.experiment("x"),
            lambda d: d.missing("a", "b", "c"),
            lambda d: d.record(ClusterRow, "x"),
            lambda d: list(d.results("x")),
            lambda d: d.register(REGISTRATION),
            lambda d: d.upsert(Project("p", "P")),
        ]
        for call in calls:
            with pytest.raises(DatabaseError, match=r"has no tables yet(.|\n)*ems up lab"):
                call(connect_again())

    def test_create_may_be_repeated_and_keeps_rows(self, database):
        database.register(REGISTRATION)
        database.create()
        assert now(database).state is State.REGISTERED

    def test_many_create_at_once(self, address, processes, connect_again):
        names = [f"person-{n}" for n in range(WORKERS)]
        for done in [processes.submit(create_elsewhere, address, name) for name in names]:
            done.result()
        assert connect_again().missing(names[0], "p", "f")[0][0] == "project"
        assert connect_again().missing("nobody", "p", "f")[0] == ("experimenter", "nobody", names)

    # The lab's rows

    def test_upsert_writes_one_row_and_updates_it(self, database, connect_again):
        database.upsert(ClusterRow("server", "server", '{"host": "a"}'))
        database.upsert(ClusterRow("server", "server", '{"host": "b"}'))
        assert connect_again().record(ClusterRow, "server") == ClusterRow("server", "server", '{"host": "b"}')
        assert database.record(ClusterRow, "other") is None

    def test_every_record_comes_back(self, database):
        records = [
            Experimenter("r2", "R", "r2@example.org", "r2-hub", "r2-gcp", "123"),
            Project("part", "A part", "study", "Some text"),
            Funding("grant2", "An agency", "A-1", 10.5, date(2030, 1, 31), "slurm", "gcp", "aws"),
        ]
        for record in records:
            database.upsert(record)
            assert database.record(type(record), record.id) == record

    def test_missing_lists_what_there_is(self, database):
        database.upsert(Funding("grant2", "An agency", budget_usd=10.5, expires=date(2030, 1, 31)))
        assert database.missing("researcher", "study", "grant") == []
        assert database.missing("researcher", "none", "other") == [
            ("project", "none", ["study"]),
            ("funding", "other", ["grant", "grant2"]),
        ]

    def test_project_needs_its_parent_and_stays_a_tree(self, database):
        with pytest.raises(DatabaseError, match=r"no parent 'nowhere'(.|\n)*study"):
            database.upsert(Project("part", "A part", parent="nowhere"))
        database.upsert(Project("part", "A part", parent="study"))
        for parent in ("part", "study"):
            with pytest.raises(DatabaseError, match="tree"):
                database.upsert(Project("study", "A study", parent=parent))

    # Registering

    def test_register_writes_every_field(self, database, connect_again):
        wanted = replace(REGISTRATION, max_hours=2.5, limit_usd=9.0, attempt=3, job_digest="j1")
        before = datetime.now(UTC) - timedelta(minutes=1)
        database.register(wanted)
        found = now(connect_again())
        assert found.registration == wanted
        assert (found.state, found.attempt, found.wanted_attempt, found.machines) == (State.REGISTERED, 0, 1, 0)
        assert before < found.registered_at < before + timedelta(minutes=2)
        assert found.registered_at.utcoffset() == timedelta(0)

    def test_a_new_one_is_not_taken_for_one_that_is_registered_again(self, database, monkeypatch):
        again = []
        monkeypatch.setattr(rules, "registered_again", lambda *given: again.append(given))
        database.register(REGISTRATION)
        assert not again

    def test_register_again_updates_but_keeps_state(self, database):
        claimed(database)
        database.mark_destroyed("5f0c")
        assert now(database).destroyed_at is not None
        database.upsert(Funding("grant2", "Another agency"))
        found = database.register(replace(REGISTRATION, funding="grant2", commit="f" * 40))
        assert (found.registration.funding, found.registration.commit) == ("grant2", REGISTRATION.commit)
        assert (found.state, found.attempt, found.destroyed_at) == (State.RUNNING, 1, None)
        assert len(database.experiments()) == 1

    @pytest.mark.parametrize("key", ["sweep", "parameters"])
    def test_what_is_computed_stays_as_it_was_recorded_first(self, database, key):
        first = replace(REGISTRATION, spec=spec_of({key: [1], "retries": 0}), points_total=17)
        database.register(first)
        found = database.register(replace(first, spec=spec_of({key: [1.0], "retries": 2}), points_total=11))
        assert found.registration == replace(first, spec=spec_of({key: [1], "retries": 2}))

    @pytest.mark.parametrize("field", ["experimenter", "project", "funding"])
    def test_register_names_a_missing_reference(self, database, field):
        with pytest.raises(DatabaseError, match=f"no {field} 'nobody'"):
            database.register(replace(REGISTRATION, **{field: "nobody"}))
        assert database.experiments() == []

    @pytest.mark.parametrize("name", ["experiment", "Run", "sqlite_master", "schema_version", "pg_class"])
    def test_results_table_cannot_be_one_of_the_registry(self, database, name):
        with pytest.raises(DatabaseError, match="keeps for itself"):
            database.register(replace(REGISTRATION, results_table=name))

    def test_results_table_stays_where_rows_are(self, database):
        database.store(claimed(database), batch([0], ints("x", 1)))
        with pytest.raises(DatabaseError, match="has 1 rows in results table 'digits'"):
            database.register(replace(REGISTRATION, results_table="elsewhere"))

    def test_the_commit_stays_the_one_that_ran(self, database):
        database.register(replace(REGISTRATION, commit="a" * 40))
        assert database.register(REGISTRATION).registration.commit == REGISTRATION.commit
        claimed(database)
        later = database.register(replace(REGISTRATION, commit="b" * 40, max_hours=9.0)).registration
        assert (later.commit, later.max_hours) == (REGISTRATION.commit, 9.0)

    def test_experiments_newest_first_by_stack(self, database):
        for id, stack in (("1", "a"), ("2", "b"), ("3", "a")):
            database.register(replace(REGISTRATION, id=id, stack=stack))
            time.sleep(0.01)
        assert [found.id for found in database.experiments()] == ["3", "2", "1"]
        assert [found.id for found in database.experiments("a")] == ["3", "1"]
        assert database.experiment("4") is None

    def test_an_experiment_that_its_stack_holds_again_comes_first(self, database):
        for id in ("1", "2"):
            database.register(replace(REGISTRATION, id=id))
            time.sleep(0.01)
        database.mark_destroyed("1")
        database.mark_destroyed("2")
        database.register(replace(REGISTRATION, id="1"))
        assert [found.id for found in database.experiments()] == ["1", "2"]

    def test_newest_is_the_first_of_each_stack(self, database, connect_again):
        assert database.newest() == [] == database.newest([])
        chosen = random.Random(7)
        for _ in range(self.changes_of_stacks):
            number = chosen.randrange(9)
            if chosen.random() < 0.4 and database.experiment(f"id{number}"):
                database.mark_destroyed(f"id{number}")
            else:
                claimed(database, f"id{number}", stack="abc"[number % 3])
            assert_newest(database, chosen.sample("abc", 2))
        assert_newest(connect_again(), ["a", "nothing"])

    def test_newest_has_what_is_long_only_where_it_is_asked_for(self, database):
        claim = claimed(database)
        database.describe(claim, "{}")
        database.release(claim, Outcome(State.FAILED, 0, 1, log_tail="the end", files_left="[]"))
        for asked in ([], ["spec"], ["log_tail", "platform"], LONG):
            (found,) = database.newest(also=asked)
            long = {name: getattr(found, name, found.registration.spec) for name in LONG}
            there = {"spec": REGISTRATION.spec, "log_tail": "the end", "platform": "{}", "files_left": "[]"}
            assert long == {name: there[name] if name in asked else "" for name in LONG}
        assert found == now(database)

    def test_newest_stays_right_while_several_change_one_stack(self, database, connect_again):
        def change(client, mine: int) -> None:
            for number in (mine, mine + 4):
                client.register(replace(REGISTRATION, id=f"id{number}"))
                client.mark_destroyed(f"id{number}")
                client.register(replace(REGISTRATION, id=f"id{number % 3}"))
                client.mark_destroyed(f"id{number % 3}")

        clients = [connect_again() for _ in range(4)]
        at_once([partial(change, client, mine) for mine, client in enumerate(clients)])
        assert_newest(database, ["digits"])

    @pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.EXPIRED])
    def test_reopen_makes_the_next_run_due(self, database, state):
        claim = claimed(database)
        database.release(claim, Outcome(state, 1, 0, error="it broke"))
        found = database.reopen("5f0c")
        assert (found.state, found.attempt, found.wanted_attempt) == (State.REGISTERED, 1, 2)
        assert (found.error, found.finished_at) == ("", None)
        assert database.reopen("5f0c") == found
        assert claimed(database).attempt == 2

    def test_reopen_leaves_others_as_they_are(self, database):
        claim = claimed(database)
        assert database.reopen("5f0c").state is State.RUNNING
        database.release(claim, Outcome(State.SUCCEEDED, 8, 0))
        assert database.reopen("5f0c").state is State.SUCCEEDED
        with pytest.raises(DatabaseError, match="no experiment 'nothing'"):
            database.reopen("nothing")

    def test_a_higher_attempt_reopens_once(self, database):
        database.release(claimed(database), Outcome(State.FAILED, 0, 8))
        assert database.register(REGISTRATION).state is State.FAILED
        second = replace(REGISTRATION, attempt=2)
        assert database.register(second).state is State.REGISTERED
        database.release(claimed(database, attempt=2), Outcome(State.FAILED, 0, 8))
        assert database.register(second).state is State.FAILED

    def test_cancelled_before_its_run_stays_cancelled(self, database):
        database.register(REGISTRATION)
        database.request_cancel("5f0c")
        assert database.register(REGISTRATION).state is State.CANCELLED

    def test_raised_hours_reopen_an_expired_one(self, database):
        claim = claimed(database, max_hours=1.0)
        database.release(claim, Outcome(State.EXPIRED, 1, 0))
        assert database.register(replace(REGISTRATION, max_hours=1.0)).state is State.EXPIRED
        found = database.register(replace(REGISTRATION, max_hours=2.0))
        assert (found.state, found.wanted_attempt, found.deadline_at) == (State.REGISTERED, 2, None)

    def test_raised_hours_do_not_reopen_a_failed_one(self, database):
        database.release(claimed(database, max_hours=1.0), Outcome(State.FAILED, 1, 0))
        assert database.register(replace(REGISTRATION, max_hours=2.0)).state is State.FAILED

    def test_changed_hours_move_the_deadline_of_a_run(self, database):
        claim = claimed(database, max_hours=1.0)
        found = database.register(replace(REGISTRATION, max_hours=3.0))
        assert found.deadline_at == claim.deadline_at + timedelta(hours=2)
        assert database.beat(claim, LONG_S).deadline_at == found.deadline_at

    def test_a_deadline_that_passed_ends_the_experiment(self, database):
        claim = claimed(database, max_hours=1e-8)
        eventually(lambda: now(database).state is State.EXPIRED)
        found = now(database)
        assert (found.finished_at, "max_hours, 1e-08, are used up" in found.error) == (claim.deadline_at, True)
        assert database.claim("5f0c", agent="a", lease_s=LONG_S) is None
        assert database.beat(claim, LONG_S).expired
        database.store(claim, batch([0], ints("x", 1)))
        database.release(claim, Outcome(State.EXPIRED, 1, 0))
        assert (now(database).state, now(database).rows_stored) == (State.EXPIRED, 1)

    def test_a_run_still_winding_down_does_not_undo_a_reopening(self, database):
        claim = claimed(database, max_hours=1e-8)
        eventually(lambda: now(database).state is State.EXPIRED)
        assert database.register(replace(REGISTRATION, max_hours=1.0)).state is State.REGISTERED
        assert database.beat(claim, LONG_S).expired
        database.release(claim, Outcome(State.EXPIRED, 3, 0))
        found = now(database)
        assert (found.state, found.wanted_attempt, found.points_done) == (State.REGISTERED, 2, 3)
        assert claimed(database, agent="b", max_hours=1.0).attempt == 2

    def test_used_up_hours_expire_again(self, database):
        claim = claimed(database, max_hours=1e-8)
        eventually(lambda: database.beat(claim, LONG_S).expired)
        database.release(claim, Outcome(State.EXPIRED, 0, 0))
        database.reopen("5f0c")
        assert database.claim("5f0c", agent="a", lease_s=LONG_S) is None
        found = now(database)
        assert found.state is State.EXPIRED
        assert "max_hours" in found.error

    def test_earlier_runs_use_up_hours(self, database):
        claim = claimed(database, max_hours=1.0)
        time.sleep(0.05)
        database.release(claim, Outcome(State.LOST, 0, 0))
        second = claimed(database, max_hours=1.0)
        left = second.deadline_at - claim.deadline_at
        assert timedelta(0) <= left < timedelta(minutes=5)
        started = now(database).heartbeat_at
        assert timedelta(minutes=55) < second.deadline_at - started <= timedelta(hours=1) - timedelta(seconds=0.04)

    def test_the_time_between_two_runs_is_nobodys(self, database):
        database.release(claimed(database), Outcome(State.LOST, 0, 0))
        time.sleep(1)
        claim = claimed(database)
        database.beat(claim, LONG_S)
        found = now(database)
        first, second = sorted(database.rows("run"), key=lambda run: run["attempt"])
        took = (first["heartbeat_at"] - first["claimed_at"]) + (found.heartbeat_at - second["claimed_at"])
        assert found.took_s == pytest.approx(took.total_seconds(), abs=0.001)
        assert found.took_s <= (found.heartbeat_at - found.started_at).total_seconds() - 0.9
