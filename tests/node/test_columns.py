"""Columns of a run: one type for each name, settled by the first value or declared."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from ems.base.messages import show
from ems.node.job.columns import WORDS, KnownTypes, Misfit, stacked
from ems.spool.batch import Column, ColumnType


def content(column: Column | None) -> tuple[str, str, list[Any], bool] | None:
    """Name, type, values, and whether they are an array."""
    return column and (column.name, column.type, list(column.values), isinstance(column.values, array))


def refusal(types: KnownTypes, values: Any) -> tuple[int, str]:
    with pytest.raises(Misfit) as caught:
        types.typed("x", values)
    return caught.value.row, str(caught.value)


def known(*values: Any) -> KnownTypes:
    types = KnownTypes()
    assert types.typed("x", list(values))
    return types


def test_a_column_of_nulls_has_no_type_until_a_value_comes() -> None:
    types = KnownTypes()
    assert types.typed("x", [None, None]) is None and types.known == {}
    assert content(types.typed("x", [None, 1])) == ("x", "int64", [None, 1], False)
    assert content(types.typed("x", [None])) == ("x", "int64", [None], False)
    assert content(types.typed("y", ["t"])) == ("y", "text", ["t"], False)
    assert types.known == {"x": "int64", "y": "text"}


def test_integers_become_doubles_where_each_is_one() -> None:
    types = known(1)
    assert content(types.typed("x", [2])) == ("x", "int64", [2], True)
    column = types.typed("x", [0.5, 2])
    assert content(column) == ("x", "float64", [0.5, 2.0], True)
    assert column and all(type(value) is float for value in column.values)
    assert content(types.typed("x", array("q", [3]))) == ("x", "float64", [3.0], True)
    assert content(types.typed("x", [None, 3])) == ("x", "float64", [None, 3.0], False)


@pytest.mark.parametrize(
    ("first", "values", "row", "problem"),
    [
        (1, [2, None, "a"], 2, "column 'x' is of type integer, and \"a\" is not"),
        (0.5, [1, True], 1, "column 'x' is of type float, and true is not"),
        ("a", [1], 0, "column 'x' is of type text, and 1 is not"),
        (True, ["true", 1], 0, "column 'x' is of type boolean, and \"true\" is not"),
        (0.5, [2**53 + 1], 0, "column 'x' is of type float, and 9007199254740993 is not an exact double"),
        (2**53 + 1, [1, 0.5], 1, "has integers that are not exact doubles, and 0.5 is not an integer of 64 bits"),
        (2**53 + 1, [2**63], 0, "exact doubles, and 9223372036854775808 is not an integer of 64 bits"),
        (1, [2**64 - 1], 0, "column 'x': 18446744073709551615 has more than 64 bits and is not an exact double"),
        ("a", ["b", "\ud800"], 1, "column 'x': \"\\ud800\" is not Unicode"),
    ],
)
def test_the_first_value_that_does_not_fit_is_named(first: Any, values: list[Any], row: int, problem: str) -> None:
    found, said = refusal(known(first), values)
    assert found == row
    assert problem in said
    assert said.startswith("column 'x'")


def test_a_refused_column_keeps_its_type() -> None:
    types = known(1)
    refusal(types, [0.5, "a"])
    assert types.known == {"x": "int64"}


OVER = 2**1024 - 2**970  # the first integer that rounds to no double


@pytest.mark.parametrize(
    ("type_", "fit", "unfit"),
    [
        ("text", ["a", "", None], [1, 0.5, True, "\ud800"]),
        ("bool", [True, False, None], [1, 0, "true", 1.0]),
        ("int64", [0, -(2**63), 2**63 - 1, None], [2**63, 2**64, -(2**63) - 1, 0.0, True, "1"]),
        ("float64", [0.5, 1, OVER - 1, 1 - OVER, 2**53 + 1, None], [OVER, 2 * OVER, -OVER, -2 * OVER, True, "1"]),
    ],
)
def test_declared_types_take_their_values_alone(type_: ColumnType, fit: list[Any], unfit: list[Any]) -> None:
    types = KnownTypes({"x": type_})
    for value in fit:
        column = types.typed("x", [value])
        assert column and column.type == type_
        assert list(column.values) == [float(value) if type_ == "float64" and value is not None else value]
    for value in unfit:
        row, said = refusal(types, [None, fit[0], value])
        assert (row, said) == (2, f"column 'x' is of type {WORDS[type_]}, and {show(value)} is not")
    assert content(types.typed("x", [None])) == ("x", type_, [None], False)
    assert content(types.typed("other", [1])) == ("other", "int64", [1], True)


def test_parts_are_stacked_in_their_order() -> None:
    ints, floats = Column("x", "int64", array("q", [1, 2])), Column("x", "float64", array("d", [0.5]))
    assert content(stacked([(2, ints), (2, ints)])) == ("x", "int64", [1, 2, 1, 2], True)
    both = stacked([(2, ints), (1, floats)])
    assert content(both) == ("x", "float64", [1.0, 2.0, 0.5], True)
    assert content(stacked([(1, floats), (1, floats)])) == ("x", "float64", [0.5, 0.5], True)
    assert content(stacked([(2, None), (2, ints)])) == ("x", "int64", [None, None, 1, 2], False)
    assert content(stacked([(1, floats), (1, None), (2, ints)])) == ("x", "float64", [0.5, None, 1.0, 2.0], False)
    assert content(stacked([(1, Column("t", "text", ["a"])), (1, Column("t", "text", ["b"]))])) == (
        *("t", "text", ["a", "b"], False),
    )
