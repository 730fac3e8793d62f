"""The rows that proposers are given, as the agent exports them; and the digest that is recorded of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ems.databases import Database, connect
from ems.node.agent.exported import Exported, RowsDigest
from ems.node.driver.proposal import told_of
from ems.node.driver.rows import BadResult
from ems.node.driver.stored import Rows, StoredRound
from ems.spool.batch import Batch, Column
from tests.databases.cases import batch, claimed, empty, failed, fill_lab, floats, ints, texts


@pytest.fixture
def database(tmp_path: Path):
    with closing(connect("sqlite:///ems.db", tmp_path)) as made:
        made.create()
        fill_lab(made)
        yield made


def store(database: Database) -> None:
    """Two rounds: points 0 to 3, of which one failed and one is empty, and 4 and 5, with other columns."""
    claim = claimed(database)
    marks = (failed(2, n=3), empty(3, n=4))
    database.store(claim, batch([0, 1], ints("n", 1, 2), ints("k", 7, 8), texts("t", "a", None), marks=marks))
    later = batch([4, 5], ints("n", 5, 6), floats("k", 0.5, 2.0), Column("ok", "bool", [True, None]))
    database.store(claim, later)


def exported(database: Database, folder: Path) -> Exported:
    found = Exported(folder, "5f0c")
    found.add(database, 1, range(4), 1)
    found.add(database, 2, range(4, 6), 0)
    return found


@pytest.fixture
def rows(database: Database, tmp_path: Path) -> Rows:
    store(database)
    question = exported(database, tmp_path / "rows").question
    return Rows(Path(question["folder"]), [StoredRound(*each) for each in question["rounds"]], question["types"])


EXPECTED = [
    {"point": 0, "row": 0, "n": 1, "k": 7.0, "t": "a", "ok": None},
    {"point": 1, "row": 0, "n": 2, "k": 8.0, "t": None, "ok": None},
    {"point": 4, "row": 0, "n": 5, "k": 0.5, "t": None, "ok": True},
    {"point": 5, "row": 0, "n": 6, "k": 2.0, "t": None, "ok": None},
]


def test_rows_are_read_one_by_one_and_in_columns(rows):
    assert list(rows) == EXPECTED and list(rows) == EXPECTED  # again, if need be
    assert (len(rows), rows.points(), rows.rounds) == (4, 6, [1, 2])
    assert rows.columns == ["point", "row", "n", "k", "t", "ok"]
    assert rows.to_dict(["ok", "point"]) == {"ok": [None, None, True, None], "point": [0, 1, 4, 5]}
    assert [part["n"] for part in rows.batches()] == [[1, 2], [5, 6]]
    with pytest.raises(KeyError, match="no column 'x'; there are point, row, n"):
        next(rows.batches(["x"]))


def test_rounds_by_number_and_failures(rows):
    assert list(rows.of_round(-1)) == list(rows.of_round(2)) == EXPECTED[2:]
    assert (len(rows.of_round(1)), rows.of_round(1).points()) == (2, 4)
    assert [(each["point"], each["parameters"]) for each in rows.failures()] == [(2, {"n": 3})]
    assert list(rows.of_round(2).failures()) == []
    for none in (0, 3, -3):
        with pytest.raises(IndexError, match="there are rounds"):
            rows.of_round(none)


def test_rows_as_frames(rows):
    pandas, polars, arrow = rows.to_pandas(), rows.to_polars(), rows.to_arrow()
    assert pandas["k"].tolist() == [7.0, 8.0, 0.5, 2.0] and pandas["ok"].dtype == "boolean"
    assert pandas["n"].dtype == "int64" and pandas["t"].tolist() == ["a", None, None, None]
    assert polars.to_dicts() == arrow.to_pylist() == EXPECTED
    assert rows.to_arrow(["n"]).column_names == ["n"]


def digest(*batches: Batch) -> str:
    found = RowsDigest("before")
    for each in batches:
        found.add(each)
    return found.hexdigest()


def test_a_digest_is_of_values_alone():
    whole = digest(batch([0, 1], floats("x", 1.5, math.nan), ints("n", 1, 2), Column("later", "text", [None, None])))
    parts = batch([0], floats("x", 1.5), ints("n", 1)), batch([1], Column("x", "float64", [None]), floats("n", 2.0))
    assert digest(*parts) == whole
    others = (
        batch([0, 1], floats("x", 1.5, 0.0), ints("n", 1, 2)),
        batch([0, 2], floats("x", 1.5, math.nan), ints("n", 1, 2)),
        batch([0, 1], floats("x", 1.5, math.nan), texts("n", "1", "2")),
        batch([0, 1], floats("x", 1.5, math.nan), ints("m", 1, 2)),
    )
    assert len({whole, *map(digest, others)}) == 5


def test_the_digest_of_a_round_depends_on_the_rounds_before(database, tmp_path):
    store(database)
    first, second = exported(database, tmp_path / "a"), Exported(tmp_path / "b", "5f0c")
    assert second.digest != first.digest == exported(database, tmp_path / "c").digest
    second.add(database, 1, range(4), 0)  # without its failure
    second.add(database, 2, range(4, 6), 0)
    assert second.digest != first.digest and second.points == 6


PLAIN: dict[str, Callable[[], object]] = {
    "None": lambda: None,
    "[]": lambda: [],
    "a list of points": lambda: [{"n": 1}, {"n": 2}],
    "a point": lambda: {"n": 1},
    "a tuple": lambda: ({"n": 1},),
    "a grid": lambda: {"n": range(2), "zip": [{"a": (1,), "b": ["x"]}]},
    "grids": lambda: [{"n": [1]}, {"n": {"count": 3}}],
    "numpy": lambda: [{"n": numpy().int64(1), "x": numpy().float32(0.5)}],
    "an array": lambda: {"n": numpy().arange(2), "x": [numpy().float64(1)]},
    "a frame": lambda: __import__("pandas").DataFrame({"n": [1, 2], "x": [0.5, 1]}),
    "an empty frame": lambda: __import__("pandas").DataFrame({"n": []}),
}


def numpy():
    return __import__("numpy")


@pytest.mark.parametrize("name", PLAIN)
def test_what_a_proposer_may_return(name):
    assert (
        told_of(PLAIN[name]())
        == {
            "None": {},
            "[]": {},
            "a list of points": {"points": [{"n": 1}, {"n": 2}]},
            "a point": {"points": [{"n": 1}]},
            "a tuple": {"points": [{"n": 1}]},
            "a grid": {"grids": [{"n": [0, 1], "zip": [{"a": [1], "b": ["x"]}]}]},
            "grids": {"grids": [{"n": [1]}, {"n": {"count": 3}}]},
            "numpy": {"points": [{"n": 1, "x": 0.5}]},
            "an array": {"grids": [{"n": [0, 1], "x": [1.0]}]},
            "a frame": {"points": [{"n": 1, "x": 0.5}, {"n": 2, "x": 1.0}]},
            "an empty frame": {},
        }[name]
    )


@pytest.mark.parametrize("odd", [7, "text", [7], [{"n": 1}, {"n": [1]}], {1: 2}.keys()])
def test_what_it_may_not_return(odd):
    with pytest.raises(BadResult, match="propose"):
        told_of(odd)
