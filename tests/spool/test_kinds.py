"""What a column is after its values, whichever way they are divided among calls."""

from __future__ import annotations

import math
from array import array
from decimal import Decimal
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.spool.kinds import Kind, column, is_exact, joined, kind_of, of_number, settled

KINDS: tuple[Kind, ...] = ("int64", "giant", "float64", "text", "bool")
VALUES = st.lists(
    st.one_of(
        st.sampled_from([None, True, "x", "\ud800", 0.5, math.nan, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1]),
        st.sampled_from([2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**63) - 1, 10**400]),
    ),
    max_size=5,
)


def test_kinds_join_in_any_order() -> None:
    for three in permutations(KINDS, 3):
        ends: set[Kind | None] = set()
        for one, other, last in permutations(three):
            both = joined(one, other)
            ends.add(joined(both, last) if both else None)
        assert len(ends) == 1, three
    assert [joined(None, kind) for kind in KINDS] == list(KINDS)
    assert joined("int64", "giant") == "giant" and joined("int64", "float64") == "float64"
    assert joined("giant", "float64") is None and joined("text", "bool") is None and joined("bool", "int64") is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("é🙂", "text"),
        ("a\ud800", None),
        ("\udfff", None),
        (True, "bool"),
        (0.5, "float64"),
        (2**53, "int64"),
        (2**53 + 1, "giant"),
        (-(2**53) - 1, "giant"),
        (2**53 + 2, "int64"),
        (-(2**63), "int64"),
        (2**63 - 1, "giant"),
        (2**63, "float64"),
        (2**63 + 1, None),
        (-(2**63) - 1, None),
        (-(2**64), "float64"),
        (10**400, None),
    ],
)
def test_the_kind_of_a_value(value: Any, kind: Kind | None) -> None:
    assert kind_of(value) == kind


@given(VALUES, st.sampled_from([None, *KINDS]), st.integers(0, 5))
def test_columns_settle_alike_at_once_and_in_parts(values: list[Any], known: Kind | None, cut: int) -> None:
    whole = settled(values, known)
    first, some = settled(values[:cut], known)
    last, others = settled(values[cut:], first)
    assert (last, {**some, **{row + cut: was for row, was in others.items() if row + cut < len(values)}}) == whole
    kind, misfits = known, {}
    for row, value in enumerate(values):
        found = None if value is None else kind_of(value)
        merged = joined(kind, found) if found else None
        if merged:
            kind = merged
        elif value is not None:
            misfits[row] = kind if found else None
    assert whole == (kind, misfits)


@given(st.lists(st.one_of(st.integers(-3, 3), st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1]))))
def test_arrays_settle_as_lists_do(values: list[int]) -> None:
    for known in (None, *KINDS):
        assert settled(array("q", values), known) == settled(values, known)
        doubles = [value / 2 for value in values]
        assert settled(array("d", doubles), known) == settled(doubles, known)


@pytest.mark.parametrize(
    ("kind", "values", "type_", "stored"),
    [
        ("int64", [1, 2], "int64", array("q", [1, 2])),
        ("giant", [2**63 - 1], "int64", array("q", [2**63 - 1])),
        ("int64", [1, None], "int64", [1, None]),
        ("float64", [1, 0.5], "float64", array("d", [1.0, 0.5])),
        ("float64", [1, None], "float64", [1.0, None]),
        ("float64", array("q", [1]), "float64", array("d", [1.0])),
        ("float64", array("d", [0.5]), "float64", array("d", [0.5])),
        ("text", ("a", None), "text", ["a", None]),
        ("bool", [True], "bool", [True]),
    ],
)
def test_a_column_is_an_array_where_nothing_is_null(kind: Kind, values: Any, type_: str, stored: Any) -> None:
    made = column("x", kind, values)
    assert (made.name, made.type, type(made.values)) == ("x", type_, type(stored))
    assert made.values == stored
    assert [type(value) for value in made.values] == [type(value) for value in stored]
    if isinstance(stored, array):
        assert isinstance(made.values, array) and made.values.typecode == stored.typecode


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (Decimal("2"), 2),
        (Decimal("2E+3"), 2000),
        (Decimal("2.0"), 2.0),
        (Decimal("-0.1"), -0.1),
        (Decimal("-Infinity"), -math.inf),
        (Decimal(2**70 + 1), 2**70 + 1),
        (Fraction(6, 3), 2),
        (Fraction(3, 4), 0.75),
        (Fraction(2**60 + 1), 2**60 + 1),
        (Fraction(10**400, 3), None),
        (Fraction(1, 3), None),
        (Decimal("0.1000000000000000055511151231257827"), None),
        (Decimal("1E+400"), 10**400),
        (Decimal("1.5E-400"), None),
    ],
)
def test_numbers_of_other_precisions(value: Any, number: Any) -> None:
    if number is None:
        with pytest.raises(ValueError, match=r"^has more digits than a double keeps$"):
            of_number(value)
    else:
        assert (of_number(value), type(of_number(value))) == (number, type(number))


def test_decimal_nan_is_nan_and_exactness_has_no_limit() -> None:
    assert math.isnan(of_number(Decimal("NaN")))
    assert is_exact(2**1023) and not is_exact(2**1024) and not is_exact(2**53 + 1) and is_exact(-(2**53))
