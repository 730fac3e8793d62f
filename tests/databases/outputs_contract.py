"""The promises about files that jobs leave, which the lab's store has."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from ems.base.errors import DatabaseError, FencedOut
from ems.databases import Outcome, Output, State
from tests.databases.cases import DatabaseCase, batch, claimed, empty, failed, ints

FIGURE = Output(0, "fig.png", "a" * 64, 12_000, "image/png")
ODD = ("ä/é 'x'.csv", 'line\nbreak"', "z", "Z", "a/b/../c", "%_", "x" * 900, "🙂", "\t", " ")


def named(*names: str, point: int = 0) -> list[Output]:
    return [replace(FIGURE, name=name, point=point, digest=f"{number:064x}") for number, name in enumerate(names)]


class OutputsContract(DatabaseCase):
    def test_outputs_are_listed_by_point_and_name(self, database, connect_again):
        claim = claimed(database)
        assert list(database.outputs("5f0c")) == []
        database.put_outputs(claim, [*named(*ODD, point=10), FIGURE, replace(FIGURE, point=2, size=2**40)])
        found = list(connect_again().outputs("5f0c"))
        assert found[:2] == [replace(FIGURE, attempt=1), replace(FIGURE, point=2, size=2**40, attempt=1)]
        assert [each.name for each in found[2:]] == sorted(ODD, key=str.encode)
        assert {each.digest for each in found[2:]} == {each.digest for each in named(*ODD)}

    def test_of_the_same_name_the_newest_counts(self, database):
        claim = claimed(database)
        database.put_outputs(claim, [FIGURE, replace(FIGURE, digest="b" * 64), *named("other")])
        assert [each.digest[0] for each in database.outputs("5f0c")] == ["b", "0"]
        heir = claimed(database)
        database.put_outputs(heir, [replace(FIGURE, digest="c" * 64, size=0)])
        database.put_outputs(heir, [replace(FIGURE, digest="c" * 64, size=0)])
        first, second = database.outputs("5f0c")
        assert (first.digest[0], first.size, first.attempt) == ("c", 0, 2) and second.attempt == 1

    def test_an_earlier_run_records_none(self, database):
        old = claimed(database)
        new = claimed(database)
        database.put_outputs(new, [FIGURE])
        with pytest.raises(FencedOut):
            database.put_outputs(old, [replace(FIGURE, digest="b" * 64)])
        database.release(new, Outcome(State.SUCCEEDED, 1, 0))
        with pytest.raises(FencedOut):
            database.put_outputs(new, named("late"))
        assert list(database.outputs("5f0c")) == [replace(FIGURE, attempt=2)]

    def test_there_may_be_thousands_while_others_write(self, database, connect_again):
        claim, other = claimed(database), connect_again()
        names = [f"frames/{number:05}.png" for number in range(2_100)]

        def store() -> None:
            for point in range(3):
                other.store(claim, batch([point], ints("x", point)))
                other.beat(claim, 3600.0, points_done=point)

        thread = threading.Thread(target=store)
        thread.start()
        database.put_outputs(claim, named(*names))
        thread.join()
        assert [each.name for each in database.outputs("5f0c")] == names

    def test_copied_points_have_theirs(self, database):
        claim = claimed(database)
        database.store(claim, batch([0, 1], ints("x", 1, 2), marks=(empty(2), failed(3))))
        database.put_outputs(claim, [output for point in range(5) for output in named("a", "b", point=point)])
        heir = claimed(database, id="other")
        for _ in range(2):  # as after an interruption
            database.copy_points(heir, "5f0c", [(0, 7), (2, 5), (3, 4), (4, 3)])
            found = list(database.outputs("other"))
            assert [(each.point, each.name, each.attempt) for each in found] == [
                *((5, name, 1) for name in "ab"),
                *((7, name, 1) for name in "ab"),
            ]
        assert len(list(database.outputs("5f0c"))) == 10

    def test_there_are_none_of_what_is_not_there(self, database):
        with pytest.raises(DatabaseError, match="no experiment 'nowhere'"):
            list(database.outputs("nowhere"))
