"""What a function may return: rows of scalars, in whatever containers."""

from __future__ import annotations

import enum
import math
from collections import ChainMap, OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from ems.node.driver.rows import BadResult, rows_of


class Level(enum.IntEnum):
    HIGH = 3


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


class Name(str, enum.Enum):  # noqa: UP042  (whose str() is another text)
    ODD = "x"


class Plain(enum.Enum):
    ONE = 1


CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "dict": lambda value: {"a": value},
    "list": lambda value: [{"a": value}],
    "array": lambda value: {"a": np.array([value])},
    "0-d array": lambda value: {"a": np.array(value)},
    "array of objects": lambda value: {"a": np.array([value], dtype=object)},
    "pandas Series": lambda value: {"a": pd.Series([value])},
    "pandas array": lambda value: {"a": pd.array([value])},
    "DataFrame": lambda value: pd.DataFrame({"a": [value]}),
    "DataFrame of objects": lambda value: pd.DataFrame({"a": pd.Series([value], dtype=object)}),
    "polars Series": lambda value: {"a": pl.Series([value])},
    "polars frame": lambda value: pl.DataFrame({"a": [value]}),
}
POLARS = {"polars Series", "polars frame"}
REFUSED = "refused"
EVERYWHERE: list[
    tuple[Any, Any, set[str]]
] = [  # value, what is stored, and containers that change it or cannot hold it
    (1, 1, set()),
    (True, True, set()),
    (0.5, 0.5, set()),
    ("x", "x", set()),
    (None, None, set()),
    (2**60, 2**60, set()),
    (2**63, 2**63, set()),
    (Decimal("1.5"), 1.5, set()),
    (Decimal("0.1"), 0.1, set()),
    (Decimal("2"), 2, set()),
    (Decimal("1E+3"), 1000, POLARS),
    (Decimal("Infinity"), math.inf, POLARS),
    (Decimal("0.1234567890123456789"), REFUSED, set()),
    (Fraction(1, 2), 0.5, set()),
    (Fraction(4, 2), 2, POLARS),
    (Fraction(1, 3), REFUSED, POLARS),
    (b"x", REFUSED, set()),
    (bytearray(b"x"), REFUSED, {"0-d array", "pandas array"}),
    (Plain.ONE, REFUSED, POLARS),
    (Name.ODD, "x", {"array", "0-d array"}),
    (Level.HIGH, 3, set()),
    (1 + 2j, REFUSED, set()),
    (np.float64(0.1), 0.1, set()),
    (np.float32(0.1), 0.10000000149011612, set()),
    (np.float16(0.1), 0.0999755859375, set()),
    (np.longdouble("0.1"), REFUSED, {"pandas Series", "pandas array", "DataFrame", *POLARS}),
    (np.longdouble(0.5), 0.5, POLARS),
    *[(type_(1), 1, set()) for type_ in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64)],
    (np.uint64(2**64 - 1), 2**64 - 1, set()),
    (np.bool_(True), True, set()),
    (np.str_("x"), "x", set()),
    (np.bytes_(b"x"), REFUSED, set()),
    (np.complex128(1), REFUSED, POLARS),
    (np.void(b"x"), REFUSED, POLARS),
    (np.datetime64("2026-01-31T12"), "2026-01-31 12", {"pandas Series", "pandas array", "DataFrame", *POLARS}),
    (np.datetime64("NaT", "s"), None, POLARS),
    (np.timedelta64(1, "s"), REFUSED, POLARS),
    (np.ma.masked, None, {"array", "0-d array", *POLARS}),
    (pd.NA, None, set()),
    (pd.NaT, None, POLARS),
    (pd.Timestamp("2026-01-31 12:00"), "2026-01-31 12:00:00", set()),
    (pd.Timedelta(5), REFUSED, set()),
    (pd.Period("2026-01"), REFUSED, set()),
    (pd.Interval(0, 1), REFUSED, set()),
    (date(2026, 1, 31), "2026-01-31", set()),
    (time(12), "12:00:00", set()),
    (datetime(2026, 1, 31), "2026-01-31 00:00:00", set()),
    (timedelta(1), REFUSED, set()),
]


@pytest.mark.parametrize(
    ("value", "stored", "spared"),
    EVERYWHERE,
    ids=[f"{type(value).__name__}-{number}" for number, (value, _, _) in enumerate(EVERYWHERE)],
)
def test_a_value_is_stored_or_refused_alike_in_all_containers(value: Any, stored: Any, spared: set[str]) -> None:
    for name, contain in CONTAINERS.items():
        if name in spared:
            continue
        if stored == REFUSED:
            with pytest.raises(BadResult, match=r"Column 'a' is an? "):
                rows_of(contain(value))
            continue
        ((cell,),) = (row.values() for row in rows_of(contain(value)))
        assert (type(cell), cell) == (type(stored), stored), name


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["x", None], None),
        (["x", None], "string"),
        (["x", None], "category"),
        (["x", None], object),
        ([1, None], "Int64"),
        ([0.5, None], "Float64"),
        ([True, None], "boolean"),
        ([True, None], object),
        ([datetime(2026, 1, 31), None], None),
    ],
)
def test_what_is_missing_in_pandas_is_null_in_a_series_as_in_a_frame(values: list[Any], dtype: Any) -> None:
    series = pd.Series(values, dtype=dtype)
    in_frame = [row["a"] for row in rows_of(pd.DataFrame({"a": series}))]
    for given in (series, series.array, pd.Index(series)):
        (row,) = rows_of({"a": given})
        assert list(row.values()) == in_frame
        assert in_frame[1] is None


def test_any_mapping_is_a_row() -> None:
    for mapping in (MappingProxyType({"a": 1}), OrderedDict(a=1), ChainMap({"a": 1})):
        for result in (mapping, [mapping]):
            (row,) = rows_of(result)
            assert (type(row), row) == (dict, {"a": 1})


def test_what_is_rounded_is_refused_in_words_that_fit() -> None:
    with pytest.raises(BadResult, match=r"Decimal\('0\.12.*more digits than a double keeps\.\nGive float\(x\)"):
        rows_of({"a": Decimal("0.1234567890123456789")})


def test_long_vectors_are_numbered_to_one_width() -> None:
    (row,) = rows_of({"v": np.arange(1000) / 7})
    assert list(row)[:2] == ["v000", "v001"]
    assert list(row)[-1] == "v999"
    assert row["v010"] == 10 / 7
    for count, names in ((1, ["v0"]), (10, ["v0", "v9"]), (11, ["v00", "v10"]), (101, ["v000", "v100"])):
        (row,) = rows_of({"v": np.arange(count)})
        assert {*names} <= {*row} and len(row) == count


def test_nan_stays_in_columns_of_floats_and_is_null_in_others() -> None:
    (row,) = rows_of(pd.DataFrame({"x": [math.nan], "o": pd.Series([math.nan], dtype=object)}))
    assert isinstance(row["x"], float)
    assert math.isnan(row["x"])
    assert row["o"] is None


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
