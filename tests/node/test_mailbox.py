"""A mailbox promises what databases do, for the run whose folder it is in."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from ems.base.errors import DatabaseError, FencedOut
from ems.databases import Outcome, State
from ems.databases.states import ELSEWHERE_S
from ems.node.mailbox import folder
from ems.node.mailbox.folder import Folder
from tests.databases.cases import batch, empty, failed, floats, ints, now, states, table, texts
from tests.node.mailboxes import ID, SWEEP, Distance, claimed, far, stored

__all__ = ["far"]

DONE = Outcome(State.SUCCEEDED, 3, 1)


# A whole run


def test_a_run_there_becomes_one_here(far):
    claim = claimed(far)
    far.mailbox.describe(claim, '{"cpu": "x"}')
    stored(far, claim, 0, 1)
    far.mailbox.store(claim, batch([], replaces=(2, 3), marks=(empty(2), failed(3))))
    far.mailbox.beat(claim, 30.0, 3, 1)
    fetched = far.pull.sync()
    assert (fetched.batches, fetched.batches_left) == (2, 0)
    assert far.outbox() == []
    seen = now(far.database)
    assert (seen.state, seen.attempt, seen.points_done, seen.points_failed) == (State.RUNNING, 1, 3, 1)
    assert (seen.platform, seen.agent) == ('{"cpu": "x"}', "a")
    assert states(far.database) == states(far.mailbox) == {"stored": [0, 1], "empty": [2], "failed": [3]}
    assert [mark.point for mark in far.mailbox.failures(ID)] == [3]
    far.mailbox.release(claim, replace(DONE, log_tail="fine", exit_code=0))
    assert far.pull.sync().batches == 0
    seen = now(far.database)
    assert (seen.state, seen.points_done, seen.log_tail, seen.machines) == (State.SUCCEEDED, 3, "fine", 0)
    assert table(far.database)["n"] == [0, 1]
    assert len(list(far.database.rows("charge"))) == 1


def test_the_moments_are_those_of_the_place(far):
    before = now(far.database).registered_at
    claim = claimed(far)
    time.sleep(0.4)
    far.mailbox.beat(claim, 30.0)
    time.sleep(0.4)
    far.pull.sync()
    seen = now(far.database)
    assert seen.heartbeat_at - seen.started_at < timedelta(seconds=0.7)
    assert seen.started_at >= before - timedelta(seconds=0.01)
    assert 0.3 < seen.took_s < 0.7


def test_a_clock_far_off_there_changes_no_moment_here(far):
    def shifted(answer):
        for said in (answer, *answer["runs"]):
            for name, value in list(said.items()):
                if folder.TIMES.fullmatch(name) and value:
                    said[name] = folder.row_text({name: folder.row_of({name: value})[name] - timedelta(days=3)})[name]

    far.on_the_way_back = shifted
    claimed(far)
    far.pull.sync()
    seen = now(far.database)
    assert seen.state is State.RUNNING
    assert abs(seen.heartbeat_at - seen.registered_at) < timedelta(seconds=10)


def test_while_nothing_is_heard_a_run_is_neither_lost_nor_expired(tmp_path):
    far = Distance(tmp_path, replace(SWEEP, max_hours=1.0))
    far.pull.sync()
    claimed(far)
    far.pull.sync()
    much_later = far.database.at(now(far.database).heartbeat_at + timedelta(days=40))
    assert much_later.experiment(ID).state is State.RUNNING
    assert timedelta(seconds=ELSEWHERE_S) > timedelta(days=30_000)


def test_a_deadline_that_passes_is_kept_there(tmp_path):
    far = Distance(tmp_path, replace(SWEEP, max_hours=0.5 / 3600))
    far.pull.sync()
    claim = claimed(far)
    assert not far.mailbox.beat(claim, 30.0).expired
    time.sleep(0.6)
    assert far.mailbox.beat(claim, 30.0).expired
    stored(far, claim, 5)
    far.mailbox.release(claim, Outcome(State.EXPIRED, 1, 0, error="its max_hours are used up"))
    far.pull.sync()
    seen = now(far.database)
    assert (seen.state, seen.error, seen.rows_stored) == (State.EXPIRED, "its max_hours are used up", 1)


def test_a_raised_limit_moves_the_deadline_there(tmp_path):
    far = Distance(tmp_path, replace(SWEEP, max_hours=1.0))
    far.pull.sync()
    claim = claimed(far)
    far.pull.sync()
    far.database.register(replace(SWEEP, max_hours=3.0))
    far.pull.sync()
    moved = far.mailbox.beat(claim, 30.0).deadline_at - claim.deadline_at
    assert abs(moved - timedelta(hours=2)) < timedelta(seconds=1)


# Orders


def test_a_cancellation_is_heard(far):
    claim = claimed(far)
    far.pull.sync()
    far.database.request_cancel(ID)
    assert not far.mailbox.beat(claim, 30.0).cancel
    far.pull.sync()
    assert far.mailbox.beat(claim, 30.0).cancel
    far.mailbox.release(claim, Outcome(State.CANCELLED, 0, 0))
    far.pull.sync()
    assert now(far.database).state is State.CANCELLED
    assert far.mailbox.claim(ID, agent="a", lease_s=30) is None


def test_a_cancellation_before_the_run_was_known_stops_it(far):
    claim = claimed(far)
    stored(far, claim, 1)
    assert far.database.request_cancel(ID).state is State.CANCELLED
    far.pull.sync()
    assert now(far.database).cancel_requested
    assert far.mailbox.beat(claim, 30.0).cancel
    far.mailbox.release(claim, Outcome(State.CANCELLED, 1, 0))
    far.pull.sync()
    assert (now(far.database).state, states(far.database)) == (State.CANCELLED, {"stored": [1]})


def test_a_retry_goes_on_there_with_what_failed(far):
    claim = claimed(far)
    far.mailbox.store(claim, batch([1], ints("n", 1), replaces=(1, 2), marks=(failed(2),)))
    far.mailbox.release(claim, Outcome(State.FAILED, 1, 1, error="1 point failed"))
    far.pull.sync()
    assert now(far.database).state is State.FAILED
    far.database.reopen(ID)
    far.pull.sync()
    assert states(far.mailbox) == {"stored": [1], "due": [2]}
    second = claimed(far)
    assert second.attempt == 2
    stored(far, second, 2)
    far.mailbox.release(second, Outcome(State.SUCCEEDED, 2, 0))
    far.pull.sync()
    assert (now(far.database).state, now(far.database).attempt) == (State.SUCCEEDED, 2)
    assert states(far.database) == {"stored": [1, 2]}


# Agents and fences


def test_an_agent_that_is_gone_is_lost_and_followed(far):
    first = claimed(far, lease_s=0.1)
    stored(far, first, 1)
    time.sleep(0.2)
    far.pull.sync()
    assert now(far.database).state is State.LOST
    second = claimed(far)
    with pytest.raises(FencedOut):
        stored(far, first, 2)
    stored(far, second, 1, 3, attempt=1)
    far.pull.sync()
    assert (now(far.database).state, now(far.database).attempt) == (State.RUNNING, 2)
    assert states(far.database) == {"stored": [1, 3]}
    runs = {run["attempt"]: run["state"] for run in far.database.rows("run")}
    assert runs == {1: "lost", 2: "running"}


def test_another_agent_waits_for_the_lease(far):
    claimed(far)
    assert far.mailbox.claim(ID, agent="b", lease_s=30) is None


def test_a_folder_that_was_removed_there_is_a_lost_run(far):
    stored(far, claimed(far), 1)
    far.pull.sync()
    shutil.rmtree(far.there / "mailbox")
    far.puller().sync()
    assert now(far.database).state is State.LOST
    far.puller().sync()
    second = claimed(far)
    assert second.attempt == 2
    assert states(far.mailbox) == {"stored": [1]}
    stored(far, second, 2)
    far.pull.sync()
    assert states(far.database) == {"stored": [1, 2]}


# What the database refuses


def test_a_batch_that_is_refused_fails_the_experiment_and_stops_the_run(far):
    claim = claimed(far)
    stored(far, claim, 1)
    far.mailbox.store(claim, batch([2], texts("n", "two"), replaces=(2,)))
    stored(far, claim, 3)
    far.pull.sync()
    seen = now(far.database)
    assert seen.state is State.FAILED
    assert "column 'n' is int64 and cannot take text" in seen.error
    assert states(far.database) == {"stored": [1]}
    with pytest.raises(FencedOut):
        far.mailbox.beat(claim, 30.0)
    assert far.pull.sync().batches_left == 0
    assert len(far.outbox()) == 2


def test_a_damaged_batch_is_set_aside_and_its_points_are_computed_again(far):
    claim = claimed(far)
    stored(far, claim, 1)
    stored(far, claim, 2)
    path = far.outbox()[0]
    path.write_bytes(path.read_bytes()[:-3])
    far.mailbox.release(claim, Outcome(State.SUCCEEDED, 2, 0))
    far.pull.sync()
    assert [each.name for each in far.outbox()] == [path.name + folder.DAMAGED]
    seen = now(far.database)
    assert seen.state is State.LOST and "1 point that the place had computed" in seen.error
    assert claimed(far).attempt == 2
    assert states(far.mailbox) == {"stored": [2]}


def test_what_only_a_lab_has_is_refused(far):
    claim = claimed(far)
    for call in (far.mailbox.create, lambda: far.mailbox.copy_points(claim, "other", []), far.mailbox.check):
        with pytest.raises(DatabaseError):
            call()


# What is known there


def test_numbers_go_on_after_all_was_fetched(far):
    claim = claimed(far)
    stored(far, claim, 1)
    first = far.outbox()[0].name
    far.pull.sync()
    (far.there / "mailbox/row.json").write_text(
        json.dumps({**json.loads((far.there / "mailbox/row.json").read_text()), "last": 0})
    )
    stored(far, claim, 2)
    assert far.outbox()[0].name > first


def test_a_batch_whose_number_could_not_be_noted_keeps_it(far, monkeypatch):
    claim = claimed(far)
    stored(far, claim, 1)
    write = Folder.write

    def full(self, name, said):
        if name == "row.json":
            raise OSError(28, "No space left on device")
        write(self, name, said)

    monkeypatch.setattr(Folder, "write", full)
    with pytest.raises(OSError, match="No space"):
        stored(far, claim, 2)
    monkeypatch.undo()
    stored(far, claim, 3)
    assert len(far.outbox()) == 3
    far.pull.sync()
    assert states(far.database) == {"stored": [1, 2, 3]}


def test_the_kinds_of_columns_are_known_there(far):
    claim = claimed(far)
    assert list(far.mailbox.results(ID)) == []
    far.mailbox.store(claim, batch([1], ints("n", 2**63 - 1), floats("x", 0.5), texts("t", None), replaces=(1,)))
    far.pull.sync()
    (row,) = far.mailbox.results(ID)
    assert [(column.name, column.type) for column in row.columns] == [("n", "int64"), ("x", "float64"), ("t", "text")]
    assert row.columns[0].values[0] == 2**63 - 1 and row.columns[2].values == [None]
