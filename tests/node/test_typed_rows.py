"""Rows of many points in typed columns, and which points have to go."""

from __future__ import annotations

from array import array
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from ems.node.driver.rows import ALLOWED, BadResult
from ems.node.driver.typed_rows import Gathered, Typed
from ems.spool.kinds import Kind


def gathered(*results: Any, known: dict[str, Kind] | None = None) -> Typed:
    collected = Gathered(["p"], {"p": "int64", **(known or {})})
    for point, result in enumerate(results):
        collected.add(point, {"p": point}, result)
    return collected.typed()


def values(typed: Typed, name: str) -> tuple[str, list[Any]]:
    (column,) = [column for column in typed.columns if column.name == name]
    return column.type, list(column.values)


class Odd:
    ndim = 0


A_DURATION = "a duration.\nGive its seconds, as a number."
NO_NAME = "cannot be the name of a column.\nAny name but an empty one and experiment_id, point, row, rowid."


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (3, f"The function returned an int: 3.\n{ALLOWED}"),
        ([1, 2], f"The function returned a list: [1, 2].\n{ALLOWED}"),
        ({"a": [1, 2]}, f"Column 'a' is a list: [1, 2].\n{ALLOWED}"),
        ({"a": np.zeros((1, 1))}, f"Column 'a' is a numpy.ndarray: array([[0.]]).\n{ALLOWED}"),
        ({"a": 1 + 2j}, f"Column 'a' is a complex: (1+2j).\n{ALLOWED}"),
        ({"a": np.timedelta64(5, "ns")}, f"Column 'a' is a numpy.timedelta64: np.timedelta64(5,'ns'), {A_DURATION}"),
        (
            {"a": np.array([5], "m8[ns]")},
            f"Column 'a' is a numpy.ndarray: array([5], dtype='timedelta64[ns]'), {A_DURATION}",
        ),
        (pl.DataFrame({"a": [timedelta(1)]}), f"Column 'a' is a datetime.timedelta: {timedelta(1)!r}.\n{ALLOWED}"),
        (
            {"a": 1, "v1": 1, "v": np.arange(2)},
            "Column 'v1' comes twice: an array has a column per element.\nRename one.",
        ),
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            "The frame has a column twice: ['a', 'a'].\nRename one of the two.",
        ),
        (
            pd.DataFrame([[1, 2]]),
            "The name of a column is an int: 0.\nAllowed: text, as in df.columns = ['a'].",
        ),
        ({"": 1}, f"'' {NO_NAME}"),
        ({"Point": 1}, f"'Point' {NO_NAME}"),
        ({"x\0": 1}, f"'x\\x00' {NO_NAME}"),
        (
            {"P": 1},
            "Column 'P' of the result is named like a parameter.\n"
            "Parameters are stored beside each row anyway: leave it out, or rename it.",
        ),
        ({"a": 1, "A": 1}, "Columns 'a' and 'A' differ only by case.\nRename one of the two."),
    ],
)
def test_what_it_may_not(result: object, problem: str) -> None:
    with pytest.raises(BadResult) as refused:
        gathered(result)
    assert str(refused.value) == problem


def test_what_only_looks_like_a_scalar_of_numpy_is_refused_like_anything_else() -> None:
    with pytest.raises(BadResult, match=r"Column 'a' is a .*Odd: <.*Odd object"):
        gathered({"a": Odd()})


def test_a_name_is_spelled_as_in_earlier_batches_and_results() -> None:
    with pytest.raises(BadResult, match="Columns 'Ab' and 'aB' differ only by case"):
        gathered({"aB": 1}, known={"Ab": "int64"})
    with pytest.raises(BadResult, match="Columns 'Ab' and 'aB' differ only by case"):
        gathered({"Ab": 1}, {"aB": 1})


def test_cells_count_and_long_text_counts_for_several() -> None:
    collected = Gathered(["p"], {})
    assert collected.cells == 0
    collected.add(0, {"p": 0}, [{"a": 1, "t": "x" * 15}, {"a": 2, "t": "x" * 9}])
    assert collected.cells == (3 + 1) + (3 + 1)
    collected.add(1, {"p": 1}, {"a": 1, "t": "x" * 71, "u": "y"})
    assert collected.cells == 8 + 4 + 9


def test_what_each_column_is_and_whose_rows_are_left() -> None:
    collected = Gathered([], {})
    for point, result in ((7, {"x": 1}), (8, [{"x": 2}, {"x": "a"}]), (9, [{"x": 3}, {"x": 2**53 + 1}])):
        collected.add(point, {}, result)
    typed = collected.typed()
    assert typed.kinds == {"x": "giant"} and list(typed.refused) == [8]
    assert (collected.points, collected.rows) == (array("q", [7, 9, 9]), array("q", [0, 0, 1]))
    assert collected.points.typecode == collected.rows.typecode == "q"
    empty = Gathered([], {})
    assert empty.points.typecode == empty.rows.typecode == "q" and empty.typed().columns == ()


ONE_TYPE = "Allowed: one type in the whole run, or whole numbers that are exact doubles among doubles."


@pytest.mark.parametrize(
    ("known", "value", "problem"),
    [
        ("int64", "a", f"Column 'x' was int64 so far and is a str: 'a' here.\n{ONE_TYPE}"),
        ("giant", 0.5, f"Column 'x' was int64 beyond the exact doubles so far and is a float: 0.5 here.\n{ONE_TYPE}"),
        (
            None,
            "\ud800",
            "Column 'x' is a str: '\\ud800'.\nAllowed: integers of 64 bits or that are exact doubles, valid Unicode.",
        ),
    ],
)
def test_why_a_point_had_to_go(known: Kind | None, value: object, problem: str) -> None:
    assert gathered({"x": value}, known={"x": known} if known else None).refused == {0: problem}


def test_columns_are_typed_arrays_where_nothing_is_null() -> None:
    typed = gathered({"x": 0.5, "n": 1, "t": "a"}, {"x": 1.5, "n": None, "t": "b", "late": True})
    assert [column.name for column in typed.columns] == ["p", "x", "n", "t", "late"]
    assert typed.columns[1].values == array("d", [0.5, 1.5])
    assert values(typed, "n") == ("int64", [1, None])
    assert values(typed, "late") == ("bool", [None, True])
    assert not typed.refused


def test_the_same_dict_changed_and_returned_again_is_copied() -> None:
    shared = {"x": 1}
    collected = Gathered([], {})
    collected.add(0, {}, shared)
    shared["x"] = 2
    collected.add(1, {}, shared)
    assert values(collected.typed(), "x") == ("int64", [1, 2])


@pytest.mark.parametrize(
    ("known", "first", "second", "expected", "refused"),
    [
        (None, 1, 0.5, ("float64", [1.0, 0.5]), []),
        ("float64", 1, 2, ("float64", [1.0, 2.0]), []),
        ("int64", 1, 0.5, ("float64", [1.0, 0.5]), []),
        ("giant", 1, 0.5, ("int64", [1]), [1]),
        ("float64", 2**53 + 1, 2**53 + 2, ("float64", [2.0**53 + 2]), [0]),
        (None, 2**53 + 1, 1, ("int64", [2**53 + 1, 1]), []),
        (None, 1, 2**63, ("float64", [1.0, 2.0**63]), []),
        (None, 1, 2**63 + 1, ("int64", [1]), [1]),
        (None, 2**53 + 1, 2**63, ("int64", [2**53 + 1]), [1]),
        (None, 1, "x", ("int64", [1]), [1]),
        ("text", 1, "x", ("text", ["x"]), [0]),
        (None, True, 1, ("bool", [True]), [1]),
        (None, "ok", "\ud800", ("text", ["ok"]), [1]),
        ("bool", None, None, ("bool", [None, None]), []),
    ],
)
def test_a_value_of_another_type_fails_its_point_alone(
    known: Kind | None, first: object, second: object, expected: object, refused: list[int]
) -> None:
    typed = gathered({"x": first}, {"x": second}, known={"x": known} if known else None)
    assert values(typed, "x") == expected
    assert list(typed.refused) == refused
    assert all("'x'" in problem for problem in typed.refused.values())


def test_a_refused_point_loses_all_its_rows() -> None:
    typed = gathered([{"x": 1}, {"x": "a"}], {"x": 2})
    assert values(typed, "p") == ("int64", [1])
    assert list(typed.refused) == [0]


def test_a_column_of_nulls_alone_is_left_out_until_it_has_a_type() -> None:
    assert [column.name for column in gathered({"x": None}).columns] == ["p"]


def test_a_refused_result_does_not_take_names_away_from_others() -> None:
    collected = Gathered([], {})
    with pytest.raises(BadResult):
        collected.add(0, {}, {"a": 1, "A": 1})
    collected.add(1, {}, {"A": 2})
    assert [column.name for column in collected.typed().columns] == ["A"]
