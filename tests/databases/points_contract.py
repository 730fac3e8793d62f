"""The promises about points: stored, empty, failed, reused."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems.base.errors import DatabaseError, FencedOut
from ems.databases import Database, Origin, Outcome, State
from ems.spool.batch import Mark
from tests.databases.cases import (
    REGISTRATION,
    SHARED,
    DatabaseCase,
    batch,
    claimed,
    empty,
    failed,
    floats,
    ints,
    now,
    states,
    table,
    texts,
)

POINTS = range(12)
SOURCE = {"stored": [0, 1, 2, 5, 6, 9], "empty": [3, 7, 8], "failed": [4, 10]}  # 11 is missing


class PointsContract(DatabaseCase):
    # Stored, empty, failed

    def test_no_points_before_the_first_rows(self, database):
        database.register(REGISTRATION)
        assert (list(database.points("5f0c")), list(database.failures("5f0c"))) == ([], [])
        database.store(claimed(database), batch([], marks=(empty(2),)))
        assert list(database.points("5f0c")) == [("empty", range(2, 3))]

    def test_points_come_as_ranges(self, database, connect_again):
        claim, other = claimed(database), claimed(database, id="other")
        database.store(claim, batch([7, 1, 2, 3], marks=(failed(5), empty(4), empty(6))))
        database.store(claim, batch([0, 2**40], marks=(failed(8), failed(9))))
        database.store(other, batch([4], marks=(failed(0),)))
        assert list(connect_again().points("5f0c")) == [
            ("stored", range(4)),
            ("stored", range(7, 8)),
            ("stored", range(2**40, 2**40 + 1)),
            ("empty", range(4, 5)),
            ("failed", range(5, 6)),
            ("empty", range(6, 7)),
            ("failed", range(8, 10)),
        ]

    @pytest.mark.parametrize("rows", [1, 3, 100])
    def test_a_point_of_several_rows_comes_once(self, database, rows):
        claim, other = claimed(database), claimed(database, id="other")
        for index in (0, 1, 4, 5, 7):
            database.store(claim, batch([index] * rows, rows=list(range(rows))))
        database.store(other, batch([2]))
        found = [("stored", range(2)), ("stored", range(4, 6)), ("stored", range(7, 8))]
        assert list(database.points("5f0c")) == found

    def test_points_are_read_from_one_snapshot(self, database):
        claim = claimed(database)
        database.store(claim, batch([0, 2, 4], marks=(failed(1),)))
        reading = database.points("5f0c")
        first = next(reading)
        database.store(claim, batch([1, 3]))
        assert [first, *reading] == [("stored", range(n, n + 1)) for n in (0, 2, 4)] + [("failed", range(1, 2))]

    def test_a_point_changes_as_a_unit(self, database):
        claim = claimed(database)
        database.store(claim, batch([0, 0, 1], ints("x", 1, 2, 3), rows=[0, 1, 0], replaces=(0, 1)))
        database.store(claim, batch([], replaces=(0, 1), marks=(failed(0), empty(1))))
        assert states(database) == {"failed": [0], "empty": [1]}
        assert (table(database), now(database).rows_stored) == ({}, 0)
        database.store(claim, batch([0], ints("x", 4), replaces=(0, 1)))
        assert states(database) == {"stored": [0]}
        assert (table(database)["x"], now(database).rows_stored) == ([4], 1)
        assert list(database.failures("5f0c")) == []

    def test_a_mark_replaces_rows_and_marks_of_its_point(self, database):
        claim = claimed(database)
        database.store(claim, batch([0, 1], ints("x", 1, 2)))
        database.store(claim, batch([], marks=(failed(0),)))
        database.store(claim, batch([], marks=(failed(0, "again"), empty(2))))
        assert states(database) == {"stored": [1], "failed": [0], "empty": [2]}
        assert [mark.error for mark in database.failures("5f0c")] == ["again"]
        assert now(database).rows_stored == 1

    def test_the_same_marks_twice_are_stored_once(self, database):
        claim = claimed(database)
        for _ in range(2):
            database.store(claim, batch([0], replaces=(0, 1, 2), marks=(failed(1), empty(2))))
        assert states(database) == {"stored": [0], "failed": [1], "empty": [2]}
        assert (list(database.failures("5f0c")), now(database).rows_stored) == ([failed(1)], 1)

    def test_failures_come_in_order_with_exact_parameters(self, database):
        claim = claimed(database)
        parameters = {"a": -0.0, "b": math.inf, "c": 0.1, "d": 2**63 - 1, "e": "😀 'q' \ud800", "f": True, "g": 1.0}
        database.store(claim, batch([], marks=(failed(9), empty(3), failed(2, "é\n" * 1000, **parameters))))
        database.store(claim, batch([], marks=(failed(5, nan=math.nan),)))
        first, second, third = database.failures("5f0c")
        assert (first, third) == (failed(2, "é\n" * 1000, **parameters), failed(9))
        assert repr(first.parameters) == repr(parameters)
        assert (second.point, repr(second.parameters)) == (5, "{'nan': nan}")
        assert [mark.point for mark in database.failures("5f0c", 2)] == [5, 9]
        assert [mark.point for mark in database.failures("5f0c", 9)] == [2, 5, 9]

    def test_what_cannot_be_stored_leaves_marks_as_they_were(self, database):
        claim = claimed(database)
        database.store(claim, batch([0], ints("x", 1), marks=(failed(1),)))
        before = now(database), states(database)
        for wrong in (
            batch([1], texts("x", "a"), replaces=(0, 1), marks=(failed(0), empty(2))),
            batch([0, 1], ints("x", 1, 2), marks=(failed(1),)),
            batch([], marks=(failed(1), empty(1))),
        ):
            with pytest.raises(DatabaseError, match=r"cannot take text|point 1 .* has a mark and rows, or two marks"):
                database.store(claim, wrong)
        assert (now(database), states(database)) == before

    def test_failures_outlive_a_reopening_until_they_are_computed(self, database):
        claim = claimed(database)
        database.store(claim, batch([0], replaces=(0, 1, 2), marks=(failed(1), failed(2))))
        database.release(claim, Outcome(State.FAILED, 1, 2, error="2 points failed"))
        database.reopen("5f0c")
        assert states(database) == {"stored": [0], "due": [1, 2]}
        again = claimed(database)
        database.store(again, batch([1], replaces=(1, 2), marks=(failed(2, "still"),)))
        assert states(database) == {"stored": [0, 1], "failed": [2]}
        assert list(database.failures("5f0c")) == [failed(2, "still")]

    def test_failures_are_due_again_for_the_runs_after_a_reopening_and_not_after_a_crash(self, database):
        database.store(claimed(database), batch([0], marks=(failed(1), failed(2), empty(3))))
        heir = claimed(database)
        assert states(database) == {"stored": [0], "failed": [1, 2], "empty": [3]}
        database.release(heir, Outcome(State.FAILED, 1, 2))
        database.reopen("5f0c")
        database.store(claimed(database), batch([], marks=(failed(2),)))
        again = claimed(database)
        assert (again.attempt, now(database).wanted_attempt) == (4, 3)
        assert states(database) == {"stored": [0], "due": [1], "failed": [2], "empty": [3]}

    # What an earlier run computed, and a later one stores

    def test_an_earlier_runs_batch_counts_only_for_points_of_which_there_is_nothing(self, database):
        """As after a zombie, whose spool is stored when somebody else has run in between."""
        claimed(database)
        between = claimed(database)
        database.store(between, batch([0, 0, 4], ints("x", 1, 2, 3), rows=[0, 1, 0], marks=(failed(1), empty(2))))
        late = batch([0, 2, 3], ints("x", 7, 8, 9), replaces=(0, 2, 3), marks=(failed(4, "old"), failed(5, "old")))
        claim = claimed(database)
        for _ in range(2):
            database.store(claim, late, 1)
        assert table(database) == {"point": [0, 0, 3, 4], "row": [0, 1, 0, 0], "x": [1, 2, 9, 3]}
        assert states(database) == {"stored": [0, 3, 4], "failed": [1, 5], "empty": [2]}
        assert list(database.failures("5f0c")) == [failed(1), failed(5, "old")]
        assert now(database).rows_stored == 4

    def test_an_earlier_runs_marks_are_due_after_a_reopening(self, database):
        database.release(claimed(database), Outcome(State.CANCELLED, 0, 0))
        database.reopen("5f0c")
        claim = claimed(database)
        database.store(claim, batch([], marks=(failed(0, "old"), empty(1))), 1)
        database.store(claim, batch([], marks=(failed(2),)))
        assert states(database) == {"due": [0], "failed": [2], "empty": [1]}
        database.store(claimed(database), batch([0], ints("x", 1), replaces=(0, 2), marks=(failed(2, "later"),)), 2)
        assert states(database) == {"stored": [0], "failed": [2], "empty": [1]}
        assert list(database.failures("5f0c")) == [failed(2)]

    def test_an_earlier_runs_batch_is_fenced_by_the_claim(self, database):
        old = claimed(database)
        claimed(database)
        with pytest.raises(FencedOut):
            database.store(old, batch([0], ints("x", 1)), 0)
        assert states(database) == {}

    @settings(max_examples=15, deadline=None, suppress_health_check=SHARED)
    @given(data=st.data())
    def test_whatever_an_earlier_run_left_changes_nothing_that_a_later_one_did(self, database, data):
        id = uuid.uuid4().hex
        claimed(database, id=id)
        points, replaced = data.draw(STORES)
        database.store(claimed(database, id=id), stored_batch(points, replaced))
        late, cleared = data.draw(STORES)
        database.store(claimed(database, id=id), stored_batch(late, cleared), 1)
        after = {point: state for state, found in states(database, id).items() for point in found}
        assert after == late | points
        assert now(database, id).rows_stored == list(after.values()).count("stored")

    # Reuse

    def test_reusable_are_others_of_the_same_code_environment_and_job(self, database):
        wanted = replace(REGISTRATION, id="wanted", job_digest="j")
        for id in ("older", "newer", "wanted"):
            claimed(database, id=id, job_digest="j", stack=id)
            time.sleep(0.01)
        for name in ("tree", "environment_digest", "python", "job_digest"):
            claimed(database, id=name, **{"job_digest": "j", name: "different"})
        database.register(replace(wanted, id="never ran"))
        assert [found.id for found in database.reusable(wanted)] == ["newer", "older"]
        assert database.reusable(wanted)[0] == now(database, "newer")
        assert database.reusable(replace(wanted, python="3.13")) == []

    def test_nothing_is_reusable_without_a_digest_of_the_job(self, database):
        claimed(database)
        assert database.reusable(replace(REGISTRATION, id="wanted")) == []

    def test_points_are_copied_with_their_origin(self, database):
        source = claimed(database)
        columns = floats("x", 0.1, None, -0.0, 4.0), texts("t", "a", "é", None, "d")
        database.store(source, batch([0, 0, 1, 2], *columns, rows=[0, 1, 0, 0], marks=(empty(3, a=1), failed(4))))
        claim = claimed(database, id="grown")
        database.store(claim, batch([0], floats("x", 9.0), replaces=(0,), marks=(failed(11), failed(14))))
        assert database.copy_points(claim, "5f0c", ((n, n + 10) for n in range(6))) == 4
        found = table(database, "grown")
        assert (found["point"], found["row"]) == ([0, 10, 10, 11, 12], [0, 0, 1, 0, 0])
        assert repr(found["x"]) == "[9.0, 0.1, None, -0.0, 4.0]"
        assert found["t"] == [None, "a", "é", None, "d"]
        assert states(database, "grown") == {"stored": [0, 10, 11, 12], "empty": [13], "failed": [14]}
        assert copied(database, "grown") == {10: ("5f0c", 0), 11: ("5f0c", 1), 12: ("5f0c", 2), 13: ("5f0c", 3)}
        assert now(database, "grown").rows_stored == 5
        assert states(database) == {"stored": [0, 1, 2], "empty": [3], "failed": [4]}

    def test_neighbours_are_copied_as_one_origin(self, database):
        database.store(claimed(database), batch(list(range(6))))
        claim = claimed(database, id="grown")
        database.copy_points(claim, "5f0c", [(0, 0), (1, 1), (2, 2), (3, 10), (5, 11), (4, 12)])
        assert list(database.origins("grown")) == [
            Origin(range(3), "5f0c", range(3)),
            Origin(range(10, 11), "5f0c", range(3, 4)),
            Origin(range(11, 12), "5f0c", range(5, 6)),
            Origin(range(12, 13), "5f0c", range(4, 5)),
        ]

    def test_copied_points_that_are_computed_anew_leave_the_rest_of_their_origins(self, database):
        for source in ("5f0c", "other"):
            database.store(claimed(database, id=source), batch(list(range(10))))
        grown, same = claimed(database, id="grown"), claimed(database, id="same")
        for claim in (grown, same):
            database.copy_points(claim, "5f0c", [(n, n) for n in range(10)])
            database.copy_points(claim, "other", [(n, n + 20) for n in range(10)])
        database.store(grown, batch([4, 9, 22], replaces=(4, 9, 22)))
        assert list(database.origins("grown")) == [
            Origin(range(4), "5f0c", range(4)),
            Origin(range(5, 9), "5f0c", range(5, 9)),
            Origin(range(20, 22), "other", range(2)),
            Origin(range(23, 30), "other", range(3, 10)),
        ]
        assert list(database.origins("same")) == [
            Origin(range(10), "5f0c", range(10)),
            Origin(range(20, 30), "other", range(10)),
        ]

    def test_failures_are_those_of_one_experiment_in_order(self, database):
        first, second = claimed(database), claimed(database, id="grown")
        for point in (7, 2, 5):
            database.store(first, batch([], marks=(failed(point),)))
            database.store(second, batch([], marks=(failed(point + 1),)))
        assert [mark.point for mark in database.failures("5f0c")] == [2, 5, 7]
        assert [mark.point for mark in database.failures("grown", 2)] == [6, 8]

    def test_what_was_copied_may_be_copied_again_and_further(self, database):
        database.store(claimed(database), batch([0, 1], ints("x", 5, 6), marks=(empty(2),)))
        claim = claimed(database, id="grown")
        for _ in range(2):
            assert database.copy_points(claim, "5f0c", [(0, 3), (1, 4), (0, 5), (2, 6)]) == 4
        assert table(database, "grown") == {"point": [3, 4, 5], "row": [0, 0, 0], "x": [5, 6, 5]}
        assert copied(database, "grown") == {3: ("5f0c", 0), 4: ("5f0c", 1), 5: ("5f0c", 0), 6: ("5f0c", 2)}
        assert (now(database, "grown").rows_stored, database.copy_points(claim, "5f0c", [])) == (3, 0)
        third = claimed(database, id="third")
        assert database.copy_points(third, "grown", [(4, 0)]) == 1
        assert copied(database, "third") == {0: ("grown", 4)}

    def test_points_are_copied_between_tables(self, database):
        stranger = claimed(database, id="stranger")
        database.store(stranger, batch([0], texts("foreign", "x")))
        database.store(claimed(database), batch([0, 1], ints("n", 1, 2), floats("x", 0.5, 1.5)))
        claim = claimed(database, id="grown", results_table="elsewhere")
        database.store(claim, batch([7], floats("n", 0.5)))
        assert database.copy_points(claim, "5f0c", [(1, 0)]) == 1
        assert table(database, "grown") == {"point": [0, 7], "row": [0, 0], "n": [2.0, 0.5], "x": [1.5, None]}

    def test_only_the_claims_holder_copies(self, database):
        database.store(claimed(database), batch([0]))
        old = claimed(database, id="grown")
        claimed(database, id="grown")
        with pytest.raises(FencedOut):
            database.copy_points(old, "5f0c", [(0, 0)])
        assert (states(database, "grown"), list(database.origins("grown"))) == ({}, [])

    def test_what_was_copied_before_an_interruption_stays_whole(self, database):
        database.store(claimed(database), batch([n // 2 for n in range(12_000)], rows=[0, 1] * 6_000))

        def interrupted():
            yield from ((n, n) for n in range(5_500))
            raise KeyboardInterrupt

        claim, database.pairs_at_once = claimed(database, id="grown"), 5_000
        with pytest.raises(KeyboardInterrupt):
            database.copy_points(claim, "5f0c", interrupted())
        done = states(database, "grown")["stored"]
        assert (len(copied(database, "grown")), now(database, "grown").rows_stored) == (len(done), 2 * len(done))
        rest = ((n, n) for n in range(len(done), 6_000))
        assert database.copy_points(claim, "5f0c", rest) == 6_000 - len(done) < 6_000
        assert states(database, "grown") == {"stored": list(range(6_000))}
        assert now(database, "grown").rows_stored == 12_000

    def test_a_point_that_is_computed_again_is_no_copy_any_more(self, database):
        database.store(claimed(database), batch(list(range(10))))
        claim = claimed(database, id="grown")
        database.copy_points(claim, "5f0c", [(n, n + 1) for n in range(10)])
        database.store(claim, batch([4, 5], replaces=(0, 4, 5, 8), marks=(failed(10),)))
        assert list(database.origins("grown")) == [
            Origin(range(1, 4), "5f0c", range(3)),
            Origin(range(6, 8), "5f0c", range(5, 7)),
            Origin(range(9, 10), "5f0c", range(8, 9)),
        ]

    @settings(max_examples=40, deadline=None, suppress_health_check=SHARED)
    @given(data=st.data())
    def test_whatever_is_stored_and_copied_every_point_has_one_state(self, database, data):
        claim, source = claimed(database, id=uuid.uuid4().hex), claimed(database, id=uuid.uuid4().hex)
        marks = tuple(Mark(n, state, {}) for state in ("empty", "failed") for n in SOURCE[state])
        database.store(source, batch(SOURCE["stored"], marks=marks))
        expected = Expected()
        for change in data.draw(st.lists(STORES | COPIES, max_size=6)):
            if isinstance(change, list):
                expected.copy(change, database.copy_points(claim, source.experiment_id, change))
            else:
                expected.store(*change)
                database.store(claim, stored_batch(*change))
            assert expected == Expected.of(database, claim.experiment_id, source.experiment_id)


def copied(database: Database, id: str) -> dict[int, tuple[str, int]]:
    """Where each copied point comes from."""
    pairs = {}
    for origin in database.origins(id):
        pairs |= {here: (origin.source, there) for here, there in zip(origin.points, origin.source_points, strict=True)}
    return pairs


SETS = st.sets(st.sampled_from(POINTS))
STORES = st.tuples(st.dictionaries(st.sampled_from(POINTS), st.sampled_from(["stored", "empty", "failed"])), SETS)
COPIES = st.lists(st.tuples(st.sampled_from(POINTS), st.sampled_from(POINTS)), unique_by=lambda pair: pair[1])


def stored_batch(points: dict[int, str], replaced: set[int]):
    rows = [point for point, state in points.items() if state == "stored"]
    marks = tuple(Mark(point, state, {}) for point, state in points.items() if state != "stored")
    return batch(rows, replaces=(*replaced, *rows), marks=marks)


@dataclass
class Expected:
    """What a database should say after the same calls."""

    state: dict[int, str] = field(default_factory=dict)
    origin: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, database: Database, id: str, source: str) -> Expected:
        state = {point: state for state, points in states(database, id).items() for point in points}
        assert now(database, id).rows_stored == list(state.values()).count("stored")
        origins = copied(database, id)
        assert {origin for origin, _ in origins.values()} <= {source}
        return cls(state, {here: there for here, (_, there) in origins.items()})

    def store(self, points: dict[int, str], replaced: set[int]) -> None:
        for point in replaced | points.keys():
            self.state.pop(point, None)
            self.origin.pop(point, None)
        self.state |= points

    def copy(self, pairs: list[tuple[int, int]], count: int) -> None:
        valid = [(there, here) for there, here in pairs if there in SOURCE["stored"] + SOURCE["empty"]]
        assert count == len(valid)
        for there, here in valid:
            self.state[here] = "stored" if there in SOURCE["stored"] else "empty"
            self.origin[here] = there
