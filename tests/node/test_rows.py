from __future__ import annotations

import ast
import enum
import math
from array import array
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from ems.node.driver import points, ranges, rows, typed_rows
from ems.node.driver.rows import BadResult, rows_of
from ems.node.driver.typed_rows import Gathered, Typed, joined


class Level(enum.IntEnum):
    HIGH = 3


def gathered(*results: Any, known: dict[str, typed_rows.Kind] | None = None) -> Typed:
    collected = Gathered(["p"], {"p": "int64", **(known or {})})
    for point, result in enumerate(results):
        collected.add(point, {"p": point}, result)
    return collected.typed()


def values(typed: Typed, name: str) -> tuple[str, list[Any]]:
    (column,) = [column for column in typed.columns if column.name == name]
    return column.type, list(column.values)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, []),
        ([], []),
        ({"a": 1, "b": None}, [{"a": 1, "b": None}]),
        ([{"a": 1}, {"b": "x"}], [{"a": 1}, {"b": "x"}]),
        ({"a": np.float64(0.1), "b": np.int32(3), "c": np.bool_(True)}, [{"a": 0.1, "b": 3, "c": True}]),
        ({"a": np.array(2.5), "t": np.str_("x"), "l": Level.HIGH}, [{"a": 2.5, "t": "x", "l": 3}]),
        ({"v": np.arange(3)}, [{"v0": 0, "v1": 1, "v2": 2}]),
        ({"v": np.array([])}, [{}]),
        (pd.DataFrame(), []),
        (pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}), [{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}]),
        (pd.DataFrame({"t": ["x", None], "o": [True, False]}), [{"t": "x", "o": True}, {"t": None, "o": False}]),
        (pd.DataFrame({"i": pd.array([1, None], dtype="Int64")}), [{"i": 1}, {"i": None}]),
        (pl.DataFrame({"a": [1, None], "t": ["x", "y"]}), [{"a": 1, "t": "x"}, {"a": None, "t": "y"}]),
    ],
)
def test_what_a_function_may_return(result: object, expected: list[dict[str, object]]) -> None:
    found = rows_of(result)
    assert found == expected
    assert [[type(value) for value in row.values()] for row in found] == [
        [type(value) for value in row.values()] for row in expected
    ]


NOON = datetime(2026, 1, 31, 12)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOON, "2026-01-31 12:00:00"),
        (NOON.replace(microsecond=5, tzinfo=UTC), "2026-01-31 12:00:00.000005+00:00"),
        (NOON.date(), "2026-01-31"),
        (NOON.time(), "12:00:00"),
        (pd.Timestamp(NOON, tz="UTC"), "2026-01-31 12:00:00+00:00"),
        (pd.Timestamp("2026-01-31 00:00:00.000000001"), "2026-01-31 00:00:00.000000001"),
        (np.datetime64("2026-01-31"), "2026-01-31"),
        (np.datetime64(NOON, "ns"), "2026-01-31 12:00:00.000000000"),
        (np.array(NOON, "M8[s]"), "2026-01-31 12:00:00"),
        (pd.NaT, None),
        (np.datetime64("NaT"), None),
    ],
)
def test_dates_and_times_are_text(value: Any, expected: str | None) -> None:
    assert rows_of({"t": value}) == [{"t": expected}]
    if isinstance(value, datetime):
        assert rows_of(pd.DataFrame({"t": [value]})) == [{"t": expected}]
        assert rows_of(pd.DataFrame({"t": pd.Series([value, pd.NaT])})) == [{"t": expected}, {"t": None}]
        assert rows_of({"t": pd.Series([value])}) == [{"t0": expected}]


def test_frames_of_dates_and_times() -> None:
    assert rows_of({"t": np.array(["2026-01-31", "NaT"], "M8[D]")}) == [{"t0": "2026-01-31", "t1": None}]
    assert rows_of(pl.DataFrame({"t": [NOON, None]})) == [{"t": "2026-01-31 12:00:00"}, {"t": None}]


def test_long_vectors_are_numbered_to_one_width() -> None:
    (row,) = rows_of({"v": np.arange(1000) / 7})
    assert list(row)[:2] == ["v000", "v001"]
    assert list(row)[-1] == "v999"
    assert row["v010"] == 10 / 7


def test_nan_stays_in_columns_of_floats_and_is_null_in_others() -> None:
    (row,) = rows_of(pd.DataFrame({"x": [math.nan], "o": pd.Series([math.nan], dtype=object)}))
    assert isinstance(row["x"], float)
    assert math.isnan(row["x"])
    assert row["o"] is None


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (3, "returned a int: 3"),
        ([1, 2], "returned a list"),
        ({"a": [1, 2]}, r"'a' is a list: \[1, 2\]"),
        ({"a": np.zeros((2, 2))}, "'a' is a numpy.ndarray"),
        ({"a": pd.Timedelta(5)}, "'a' is a pandas.*Timedelta"),
        ({"a": np.timedelta64(5, "ns")}, "(?s)'a' is .*a duration.*seconds"),
        ({"a": np.array([5], "m8[ns]")}, "(?s)'a' is .*a duration.*seconds"),
        (pl.DataFrame({"a": [timedelta(1)]}), "'a' is a datetime.timedelta"),
        ({"a": 1 + 2j}, "'a' is a complex"),
        ({"v0": 1, "v": np.arange(2)}, "'v0' comes twice"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column twice"),
        (pd.DataFrame([[1, 2]]), "name of a column is a int: 0"),
        ({"": 1}, "'' cannot be the name"),
        ({"Point": 1}, "'Point' cannot be the name"),
        ({"P": 1}, "'P' of the result is named like a parameter"),
        ({"a": 1, "A": 1}, "'a' and 'A' differ only by case"),
    ],
)
def test_what_it_may_not(result: object, problem: str) -> None:
    with pytest.raises(BadResult, match=problem):
        gathered(result)


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
    known: typed_rows.Kind | None, first: object, second: object, expected: object, refused: list[int]
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


def test_kinds_join_in_any_order() -> None:
    for one in ("int64", "giant", "float64", "text", "bool"):
        for other in ("int64", "giant", "float64", "text", "bool"):
            assert joined(one, other) == joined(other, one)


@pytest.mark.parametrize("module", [rows, ranges, points])
def test_what_runs_in_other_environments_is_python_3_9(module: Any) -> None:
    ast.parse(Path(module.__file__).read_text(), feature_version=(3, 9))


def test_a_refused_result_does_not_take_names_away_from_others() -> None:
    collected = Gathered([], {})
    with pytest.raises(BadResult):
        collected.add(0, {}, {"a": 1, "A": 1})
    collected.add(1, {}, {"A": 2})
    assert [column.name for column in collected.typed().columns] == ["A"]


def test_what_numpy_has_masked_is_null() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[True, True])
    given = {
        "mean": masked.mean(),
        "zero": np.ma.array(42.0, mask=True),
        "kept": np.ma.array(42.0, mask=False),
        "day": np.ma.array(np.datetime64("2026-01-31"), mask=True),
        "v": np.ma.array([1, 2], mask=[True, False]),
    }
    (row,) = rows_of(given)
    assert row == {"mean": None, "zero": None, "kept": 42.0, "day": None, "v0": None, "v1": 2}
