from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ems.databases import Outcome, State, connect
from ems.databases.sqlite.database import SqliteDatabase
from ems.node.agent.courier import Courier
from ems.node.agent.point_count import PointCount
from ems.node.agent.spools import Spools
from ems.spool.batch import Batch, Column
from ems.spool.folder import Spool, read
from ems.spool.gathering import gathered
from tests.databases.cases import batch, claimed, failed, fill_lab, floats, ints, now, states, table
from tests.processes import PATIENCE_S, eventually


@pytest.fixture
def waiting(tmp_path) -> Spool:
    return Spool(tmp_path / "spool")


def read_all(waiting: Spool) -> Iterator[tuple[Path, Batch]]:
    return ((path, read(path)) for path in waiting.waiting())


def written(waiting: Spool, *batches: Batch) -> list[tuple[list[str], Batch]]:
    for one in batches:
        waiting.write(one)
    return [([path.stem[-1] for path in paths], joined) for paths, joined in gathered(read_all(waiting), 1.0)]


def test_neighbours_come_together(waiting):
    numbers = Column("x", "float64", array("d", [1.5, -0.0]))
    ((names, joined),) = written(
        waiting,
        batch([0, 1], numbers, replaces=(0, 1)),
        batch([2], floats("x", None), replaces=(2,), marks=(failed(7),)),
        batch([3], floats("x", 2.5), replaces=(3, 4)),
    )
    assert names == ["1", "2", "3"]
    assert (joined.points, joined.rows) == (array("q", [0, 1, 2, 3]), array("q", [0] * 4))
    assert repr(joined.columns[0].values) == "[1.5, -0.0, None, 2.5]"
    assert (joined.replaces, joined.marks) == ((0, 1, 2, 3, 4), (failed(7),))


def test_arrays_stay_arrays(waiting):
    ((_, joined),) = written(waiting, *(batch([n], Column("q", "int64", array("q", [n]))) for n in range(3)))
    assert joined.columns[0].values == array("q", [0, 1, 2])


@pytest.mark.parametrize(
    "second",
    [
        batch([0], ints("x", 2), replaces=(0,)),
        batch([], ints("x"), marks=(failed(1),)),
        batch([5], floats("x", 2.0)),
        batch([5], ints("y", 2)),
    ],
)
def test_what_changes_an_earlier_one_or_has_other_columns_comes_by_itself(waiting, second):
    first = batch([0, 1], ints("x", 1, 1))
    assert written(waiting, first, second, replace(second, replaces=()))[0][0] == ["1"]


def test_what_is_brought_together_has_bounds(waiting):
    many = [batch([n], Column("t", "text", ["x" * 600_000])) for n in range(5)]
    assert [names for names, _ in written(waiting, *many)] == [["1", "2"], ["3", "4"], ["5"]]


def test_two_come_together_as_whole_as_three(waiting):
    ((names, joined),) = written(waiting, batch([0], ints("x", 5)), batch([1], ints("x", 6)))
    assert names == ["1", "2"]
    assert (list(joined.points), list(joined.columns[0].values)) == ([0, 1], [5, 6])


def test_a_batch_is_full_once_its_files_have_more_than_the_bound(waiting):
    """Of equal files and a bound of two of them three come together; so, too, behind one with other columns."""
    alike = [batch([n], Column("t", "text", ["x" * 50])) for n in range(10, 23)]
    alike[6] = batch([16], Column("u", "text", ["x" * 50]))
    for one in alike:
        waiting.write(one)
    (size,) = {path.stat().st_size for path in waiting.waiting()}
    found = [len(paths) for paths, _ in gathered(read_all(waiting), 2 * size / 10**6)]
    assert 2 * size / 10**6 * 10**6 == 2 * size, "this size cannot be a bound: change the length of the text"
    assert found == [3, 3, 1, 3, 3]


class Dear(SqliteDatabase):
    """A database that wants few calls."""

    least_beat_s = 3600.0
    calls = 0

    def store_pause_s(self, running_s: float) -> float:
        return 3600.0

    def store(self, claim, batch, attempt=None) -> None:
        type(self).calls += 1
        super().store(claim, batch, attempt)


def test_the_first_rows_come_at_once_and_later_ones_together_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(Dear, "calls", 0)
    with closing(connect("sqlite:///ems.db", tmp_path)) as database:
        database.create()
        fill_lab(database)
        claim = claimed(database)
        spools = Spools(tmp_path, claim.attempt, [], continues=False)
        waiting = spools.own
        courier = Courier(lambda: Dear(tmp_path / "ems.db"), claim, spools, lease_s=1.0, beat_s=0.1)
        courier.count = PointCount(10)
        courier.start()
        waiting.write(batch([0], ints("x", 0), replaces=(0,)))
        courier.wake()
        eventually(lambda: now(database).rows_stored == 1)
        for number in range(1, 6):
            waiting.write(batch([number], ints("x", number), replaces=(number,)))
            courier.wake()
        courier.hurry()
        eventually(lambda: not waiting.waiting())
        eventually(lambda: now(database).points_done == 6)  # told with the rows, as no beat is due for an hour
        together = Dear.calls
        waiting.write(batch([], marks=(failed(9),)))
        courier.finish(Outcome(State.SUCCEEDED, 6, 1))
        courier.join(PATIENCE_S)
        assert together <= 4 and Dear.calls == together + 1
        assert table(database)["x"] == list(range(6))
        assert states(database)["failed"] == [9]
        assert now(database).state is State.SUCCEEDED
