"""Points that the lab's database has of earlier experiments are not computed far away."""

from __future__ import annotations

import json
from dataclasses import replace

from ems.databases import Outcome, State
from tests.databases.cases import batch, floats, ints, now, states
from tests.node.mailboxes import ID, SWEEP, Distance, claimed


def study(id: str, count: int, **more: object):
    """A sweep over 0, 1, 2, … of the same code."""
    job = {"function": "study:f", "sweep": [{"n": list(range(count))}]}
    wanted = {"id": id, "stack": id, "job_digest": "j", "spec": json.dumps({"job": job}), "points_total": count}
    return replace(SWEEP, **wanted, **more)


def test_points_that_an_earlier_experiment_has_are_copied_and_not_computed_there(tmp_path):
    far = Distance(tmp_path, study(ID, 6))
    far.database.register(study("before", 3))
    earlier = far.database.claim("before", agent="a", lease_s=30.0)
    far.database.store(earlier, batch([0, 1], ints("n", 10, 11), floats("x", 0.1, 0.2), replaces=(0, 1)))
    far.database.release(earlier, Outcome(State.SUCCEEDED, 2, 0))
    far.pull.sync()
    assert states(far.mailbox) == {"stored": [0, 1]}
    claim = claimed(far)
    far.mailbox.store(claim, batch([2, 3, 4, 5], ints("n", 2, 3, 4, 5), replaces=(2, 3, 4, 5)))
    far.mailbox.release(claim, Outcome(State.SUCCEEDED, 6, 0))
    far.pull.sync()
    seen = now(far.database)
    assert (seen.state, seen.rows_stored, seen.points_done) == (State.SUCCEEDED, 6, 6)
    assert [(origin.points, origin.source) for origin in far.database.origins(ID)] == [(range(2), "before")]
    assert states(far.database) == {"stored": [0, 1, 2, 3, 4, 5]}


def test_points_whose_experiment_has_gone_before_they_were_copied_are_computed(tmp_path):
    far = Distance(tmp_path, study(ID, 3))
    far.database.register(study("before", 1))
    earlier = far.database.claim("before", agent="a", lease_s=30.0)
    far.database.store(earlier, batch([0], ints("n", 10), replaces=(0,)))
    far.pull.sync()
    claim = claimed(far)
    far.mailbox.store(claim, batch([1, 2], ints("n", 1, 2), replaces=(1, 2)))
    far.mailbox.release(claim, Outcome(State.SUCCEEDED, 3, 0))
    far.database.store(earlier, batch([], replaces=(0,)))  # it is computed anew there
    far.pull.sync()
    assert now(far.database).state is State.LOST and states(far.mailbox) == {"stored": [1, 2]}
