"""The promises about rounds of points that results decide."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from ems.base.errors import DatabaseError, FencedOut
from ems.databases import Outcome, Round, State, rounds
from tests.databases.cases import LONG_S, REGISTRATION, WORKERS, DatabaseCase, batch, claimed, ints, now

GRIDS = ({"n": [1, 2, 3]}, {"n": [0.1], "name": ['é\n"{']})
SECOND = Round(2, 8, 4, GRIDS, "d" * 64)
PROPOSING = {"job": {"function": "m:f", "propose": "m:g", "sweep": [{"n": {"range": [1, 8, 1]}}]}}


def spec(**limits: int) -> str:
    return json.dumps({**PROPOSING, "limits": limits})


class RoundsContract(DatabaseCase):
    def test_a_round_is_recorded_and_its_points_count(self, database, connect_again):
        claim = claimed(database, spec=spec())
        assert database.rounds("5f0c") == []
        recorded = database.propose(claim, SECOND)
        assert recorded == replace(SECOND, attempt=1)
        assert connect_again().rounds("5f0c") == [recorded]
        assert now(database).registration.points_total == 12

    def test_a_round_is_recorded_once(self, database):
        claim = claimed(database, spec=spec())
        first = database.propose(claim, SECOND)
        other = replace(SECOND, points=1, grids=({"n": [9]},), digest="e" * 64)
        assert database.propose(claim, other) == first
        heir = claimed(database, spec=spec())
        assert database.propose(heir, other) == first == database.rounds("5f0c")[0]
        assert now(database).registration.points_total == 12

    def test_of_many_at_once_one_is_recorded(self, database, connect_again):
        claim = claimed(database, spec=spec())
        returned = []

        def propose(number: int) -> None:
            wanted = replace(SECOND, points=1, grids=({"n": [number]},))
            returned.append(connect_again().propose(claim, wanted))

        threads = [threading.Thread(target=propose, args=(number,)) for number in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(returned) == WORKERS and {str(found) for found in returned} == {str(*database.rounds("5f0c"))}
        assert now(database).registration.points_total == 9

    def test_rounds_follow_one_another(self, database):
        claim = claimed(database, spec=spec())
        found = [database.propose(claim, replace(SECOND, number=2 + n, first_point=8 + 4 * n)) for n in range(12)]
        end = database.propose(claim, Round(14, 8 + 48, 0, (), "f" * 64))
        assert database.rounds("5f0c") == [*found, end] and end.grids == ()
        for elsewhere in (8, 55, 57):
            with pytest.raises(DatabaseError, match="round 15 of experiment 5f0c begins with point"):
                database.propose(claim, replace(SECOND, number=15, first_point=elsewhere))
        assert now(database).registration.points_total == 56

    def test_an_earlier_run_proposes_nothing(self, database):
        old = claimed(database, spec=spec())
        new = claimed(database, spec=spec())
        for fenced in (SECOND, replace(SECOND, first_point=3)):
            with pytest.raises(FencedOut):
                database.propose(old, fenced)
        database.propose(new, SECOND)
        database.release(new, Outcome(State.SUCCEEDED, 12, 0))
        with pytest.raises(FencedOut):
            database.propose(new, SECOND)
        assert len(database.rounds("5f0c")) == 1

    def test_a_long_list_of_points_is_kept_in_parts(self, database):
        claim = claimed(database, spec=spec())
        grids = ({"zip": [{"a": [n / 7 for n in range(30_000)], "b": [*range(30_000)]}]},)
        database.propose(claim, Round(2, 8, 30_000, grids, ""))
        assert database.rounds("5f0c")[0].grids == grids
        huge = ({"a": ["x" * 90] * 40_000},)
        with pytest.raises(DatabaseError, match="allowed are 3,000,000"):
            database.propose(claim, Round(3, 30_008, 40_000, huge, ""))
        assert now(database).registration.points_total == 30_008

    def test_the_sweep_as_it_has_grown(self, database):
        claim = claimed(database, spec=spec())
        database.propose(claim, Round(2, 8, 1, ({"n": [42]},), ""))
        sweep = rounds.sweep_of(database, now(database).registration)
        assert (len(sweep), sweep.parameters(7), sweep.parameters(8)) == (9, {"n": 8}, {"n": 42})

    def test_registered_again_it_keeps_its_points(self, database):
        claim = claimed(database, spec=spec(max_points=20))
        database.propose(claim, SECOND)
        database.register(replace(REGISTRATION, spec=spec(max_points=30)))
        assert now(database).registration.points_total == 12 and now(database).state is State.RUNNING

    @pytest.mark.parametrize(("before", "after"), [({"max_points": 12}, {"max_points": 13}), ({"max_rounds": 2}, {})])
    def test_raised_limits_let_a_succeeded_experiment_go_on(self, database, before, after):
        claim = claimed(database, spec=spec(**before))
        database.store(claim, batch([0], ints("x", 1)))
        database.release(claim, Outcome(State.SUCCEEDED, 8, 0))
        assert database.register(replace(REGISTRATION, spec=spec(**before))).state is State.SUCCEEDED
        found = database.register(replace(REGISTRATION, spec=spec(**after)))
        assert (found.state, found.wanted_attempt) == (State.REGISTERED, 2)
        assert database.claim("5f0c", agent="a", lease_s=LONG_S)

    def test_there_is_no_round_of_what_is_not_there(self, database):
        with pytest.raises(DatabaseError, match="no experiment 'nowhere'"):
            database.rounds("nowhere")
