"""Rows that are fetched from a mailbox are in the lab's database once and whole, whatever happens on the way."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems.base.errors import FencedOut, Unreachable, UserError
from ems.base.locks import exclusive
from ems.clusters import pull
from ems.clusters.pull import Pull, glance, mark
from ems.databases import Outcome, State
from ems.node.mailbox.folder import Folder
from tests.databases.cases import batch, failed, ints, now, states, table
from tests.node.mailboxes import COMMAND, ID, Distance, backup, claimed, far, restore, stored

__all__ = ["far"]

# Databases that are not what they were


def test_two_databases_do_not_share_a_run(far, tmp_path):
    other = Distance(tmp_path / "other")
    other.there = far.there
    with pytest.raises(UserError) as caught:
        other.pull.sync()
    assert "belongs to another database: sqlite:///ems.db of" in str(caught.value) and caught.value.hint


def test_a_copy_of_an_hour_ago_has_missing_points_computed_again(far):
    claim = claimed(far)
    stored(far, claim, 1)
    far.pull.sync()
    copy = backup(far)
    stored(far, claim, 2)
    far.pull.sync()
    stored(far, claim, 3)
    far.mailbox.release(claim, Outcome(State.SUCCEEDED, 3, 0))
    far.pull.sync()
    assert now(far.database).state is State.SUCCEEDED
    restore(far, copy)
    assert states(far.database) == {"stored": [1]}
    far.puller().sync()
    seen = now(far.database)
    assert seen.state is State.LOST
    assert "2 points that the place had computed are not in the lab's database" in seen.error
    second = claimed(far)
    assert states(far.mailbox) == {"stored": [1]}
    stored(far, second, 2, 3)
    far.mailbox.release(second, Outcome(State.SUCCEEDED, 3, 0))
    far.pull.sync()
    assert (now(far.database).state, states(far.database)) == (State.SUCCEEDED, {"stored": [1, 2, 3]})


def test_a_copy_from_before_the_run_has_all_computed_again(tmp_path):
    far = Distance(tmp_path, COMMAND)
    copy = backup(far)
    far.pull.sync()
    claim = claimed(far)
    far.mailbox.store(claim, batch([0, 0], ints("n", 1, 2), rows=[0, 1], replaces=(0,)))
    far.pull.sync()
    far.mailbox.release(claim, Outcome(State.SUCCEEDED, 1, 0))
    restore(far, copy)
    far.puller().sync()
    assert (now(far.database).state, now(far.database).attempt) == (State.LOST, 1)
    assert claimed(far).attempt == 2
    assert far.mailbox.experiment(ID).rows_stored == 0


def test_a_run_whose_place_is_gone_is_given_up_and_what_comes_late_counts_where_nothing_is(far):
    claim = claimed(far)
    stored(far, claim, 1)
    far.pull.sync()
    stored(far, claim, 2, 3)
    pull.give_up(far.lab, now(far.database))
    assert far.database.request_cancel(ID).state is State.CANCELLED
    far.database.reopen(ID)
    here = far.database.claim(ID, agent="here", lease_s=30.0)
    far.database.store(here, batch([2], ints("n", 20), replaces=(2,)))
    far.database.release(here, Outcome(State.FAILED, 2, 1))
    far.database.reopen(ID)
    far.pull.sync()
    second = claimed(far)
    assert second.attempt == 3
    with pytest.raises(FencedOut):
        stored(far, claim, 4)
    far.pull.sync()
    assert table(far.database)["n"] == [1, 20, 3]


def test_only_a_run_far_away_is_given_up(far):
    with pytest.raises(UserError):
        pull.give_up(replace(far.lab, root=far.there), now(far.database))


# The way


@pytest.mark.parametrize("fetches", range(4))
def test_interrupted_at_any_moment_nothing_is_lost_or_doubled(far, fetches):
    """Of the questions of one call, those from `fetches` on do not arrive, or their answers do not."""
    for answered in (False, True):
        claim, asked = claimed(far), [0]
        stored(far, claim, 1, 2)

        def cut(_, asked=asked):
            asked[0] += 1
            if asked[0] > fetches:
                raise Unreachable("cut")

        setattr(far, "on_the_way_back" if answered else "on_the_way", cut)
        for _ in range(2):
            with suppress(Unreachable):
                far.puller().sync()
        far.on_the_way = far.on_the_way_back = lambda _: None
        assert states(far.mailbox)["stored"] == [1, 2]
        far.puller().sync()
        assert states(far.database) == {"stored": [1, 2]}
        assert table(far.database)["n"] == [1, 2]


def test_rows_that_are_damaged_on_the_way_are_fetched_again(far):
    stored(far, claimed(far), 1)

    def spoil(answer):
        answer["content"] = answer["content"][:-1]

    far.on_the_way_back = spoil
    with pytest.raises(Unreachable):
        far.pull.sync()
    far.on_the_way_back = lambda _: None
    far.pull.sync()
    assert states(far.database) == {"stored": [1]}


def test_many_batches_come_in_several_answers_in_order(far, monkeypatch):
    monkeypatch.setattr("ems.node.mailbox.exchange.MOST_BYTES", 400)
    claim = claimed(far)
    for n in range(8):
        stored(far, claim, n)
    far.mailbox.release(claim, Outcome(State.SUCCEEDED, 8, 0))
    sizes = []
    far.on_the_way_back = lambda answer: sizes.append(len(answer["batches"]))
    assert far.pull.sync().batches == 8
    assert len(sizes) > 3
    assert now(far.database).state is State.SUCCEEDED


def test_a_glance_asks_for_all_at_once_stores_and_confirms(far, tmp_path, monkeypatch):
    claim = claimed(far)
    stored(far, claim, 1)
    stored(far, claim, 2)
    asked = []
    whole = far.answered_each
    monkeypatch.setattr(far, "answered_each", lambda *given: asked.append(given[2]) or whole(*given))
    glance([far.puller(), *(Pull(far.lab, f"unknown{n}", far) for n in range(2))], time.monotonic())
    assert table(far.database)["n"] == [1, 2] and far.outbox() == []
    assert [len(questions) for questions in asked] == [1, 1]


def test_a_glance_leaves_what_another_command_fetches(far):
    stored(far, claimed(far), 1)
    with exclusive(mark(far.lab, ID)):
        glance([far.puller()], time.monotonic())
    assert len(far.outbox()) == 1
    glance([far.puller()], time.monotonic())
    assert far.outbox() == []


def test_of_a_glance_that_is_killed_before_it_confirms_nothing_is_doubled(far):
    stored(far, claimed(far), 1)
    talk = far.puller().glance(1_000, time.monotonic())
    talk.send(far.answered("", far.there, far.puller().worded(next(talk))))
    talk.close()
    assert len(far.outbox()) == 1 and states(far.database) == {"stored": [1]}
    far.puller().sync()
    assert far.outbox() == [] and states(far.database) == {"stored": [1]}


def test_what_was_removed_there_by_hand_is_not_asked_for(far):
    """Only by name and content is a batch removed: one of the same name that came since stays."""
    claim = claimed(far)
    stored(far, claim, 1)
    path = far.outbox()[0]
    Folder(far.there).confirm({path.name: "0" * 64}, damaged={})
    assert far.outbox() == [path]


# All of it together


STEPS = st.lists(st.sampled_from(["store", "fail", "beat", "die", "sync", "cut", "lose", "stop"]), max_size=25)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 10**6))
def test_whatever_happens_the_rows_are_those_of_a_run_beside_its_database(steps, seed, tmp_path_factory):
    far = Distance(tmp_path_factory.mktemp("far"))
    beside = Distance(tmp_path_factory.mktemp("beside")).database
    far.pull.sync()
    sides = (far.mailbox, beside)
    claims = [side.claim(ID, agent="a", lease_s=30.0) for side in sides]
    for number, step in enumerate(steps):
        point = (seed + number * 3) % 8
        if step in {"store", "fail"}:
            marks = (failed(point),) if step == "fail" else ()
            found = batch(
                [] if marks else [point], *([] if marks else [ints("n", number)]), replaces=(point,), marks=marks
            )
            for side, claim in zip(sides, claims, strict=True):
                side.store(claim, found)
        elif step == "die":
            claims = [side.claim(ID, agent="a", lease_s=30.0) for side in sides]
        elif step == "stop":
            for side, claim in zip(sides, claims, strict=True):
                side.release(claim, Outcome(State.LOST, 0, 0))
            claims = [side.claim(ID, agent="a", lease_s=30.0) for side in sides]
        elif step == "beat":
            far.mailbox.beat(claims[0], 30.0)
        else:
            _interrupted(far, step, seed + number)
    for side, claim in zip(sides, claims, strict=True):
        assert states(side) == states(beside)
        side.release(claim, Outcome(State.SUCCEEDED, len(states(side).get("stored", [])), 0))
    far.puller().sync()
    assert table(far.database) == table(beside)
    assert states(far.database) == states(beside)
    assert now(far.database).state is State.SUCCEEDED
    assert now(far.database).attempt == now(beside).attempt
    assert len(list(far.database.rows("run"))) == len(list(beside.rows("run")))


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["store", "die", "sync", "cut", "lose", "copy", "restore"]), max_size=25),
    seed=st.integers(0, 10**6),
)
def test_whatever_copy_is_restored_all_points_are_there_in_the_end(steps, seed, tmp_path_factory):
    far = Distance(tmp_path_factory.mktemp("far"))
    far.pull.sync()
    copy, claim = backup(far), claimed(far)
    for number, step in enumerate(steps):
        if step == "store":
            stored(far, claim, (seed + number * 3) % 8)
        elif step == "die":
            claim = claimed(far)
        elif step == "copy":
            copy = backup(far)
        elif step == "restore":
            restore(far, copy)
            far.pull = far.puller()
        else:
            _interrupted(far, step, seed + number)
    _finish(far, claim)
    assert now(far.database).state is State.SUCCEEDED
    assert states(far.database) == {"stored": [*range(8)]}
    assert table(far.database)["n"] == [*range(8)]


def _finish(far, claim):
    """As agents do: each computes what it knows to be missing, until the run has succeeded here."""
    for _ in range(4):
        missing = [point for point in range(8) if point not in states(far.mailbox).get("stored", [])]
        stored(far, claim, *missing)
        far.mailbox.release(claim, Outcome(State.SUCCEEDED, 8, 0))
        far.puller().sync()
        if now(far.database).state.finished:
            return
        claim = claimed(far)


def _interrupted(far, step, seed):
    """`sync` by a new command, `cut` on the way there or `lose` the answer, at some question."""
    asked = [0]

    def cut(_):
        asked[0] += 1
        if asked[0] > seed % 4:
            raise Unreachable(step)

    if step != "sync":
        setattr(far, "on_the_way" if step == "cut" else "on_the_way_back", cut)
    few_bytes = 300 if seed % 3 else 10**6  # one or two batches, or all
    try:
        with patch("ems.node.mailbox.exchange.MOST_BYTES", few_bytes):
            (far.pull if seed % 2 else far.puller()).sync()
    except Unreachable:
        assert step != "sync"
    far.on_the_way = far.on_the_way_back = lambda _: None
