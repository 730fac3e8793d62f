"""What is refused below `sweep:`, and how it is said."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.base.messages import UnquotedDate
from ems.databases.columns import RESERVED
from ems.stack import fields
from ems.stack import sweep_grids as grids
from ems.stack.keys import Problems


def problems(value):
    try:
        grids.check(value)
    except Problems as several:
        found = dict(several.located)
        assert len(found) == len(several.located), "one place has two problems"
        return found
    raise AssertionError("was allowed")


def problem(form, *below):
    """The one problem of the axis `form`, at the keys `below` it."""
    ((where, said),) = problems({"a": form}).items()
    assert where == ("a", *below)
    return said


@pytest.mark.parametrize(
    "value, where, said",
    [
        (None, (), "is empty (null): allowed is a grid"),
        (3, (), "is 3: allowed is a grid, as {name: [1, 2, 3]}"),
        ({}, (), "is a mapping of 0: allowed is a grid"),
        ([], (), "is empty: allowed is a grid, as {name: [1, 2]}, or a list of grids"),
        ([{"a": [1]}, 3], (1,), "is 3: allowed is a grid"),
        ({"zip": []}, ("zip",), "is empty: allowed is axes"),
        ({"zip": {"a": [1, 2]}}, ("zip",), "is a mapping of 1: allowed is two axes or more"),
        ({"zip": 5}, ("zip",), "is 5: allowed is two axes or more"),
        ({"zip": [{"a": [1], "b": [1, 2]}]}, ("zip", 0), "has axes of different lengths, a (1), b (2)"),
        ({"zip": {"a": {"count": 10**8}, "b": [1]}}, ("zip",), "different lengths, a (100,000,000), b (1)"),
        ({"zip": {"a": [1], "zip": [1]}}, ("zip", "zip"), "is zip, the key of axes that move together"),
        ({"zip": {"a": [1], "b": []}}, ("zip", "b"), "is empty: allowed is one value or more"),
    ],
)
def test_a_grid_maps_names_to_values(value, where, said):
    found = problems(value)
    assert list(found) == [where]
    assert said in found[where]


@pytest.mark.parametrize(
    "name, said",
    [
        *[
            ("a b", "a name of up to 63 letters"),
            ("1a", "with a letter first"),
            ("_a", "a letter first"),
            ("é", "name"),
        ],
        *[("a" * 64, "up to 63"), ("a.b", "digits and `_`"), ("point", "as point_"), ("Row", "as Row_")],
        *[("experiment_id", "results tables keep"), ("lambda", "as lambda_"), ("None", "a word of Python")],
    ],
)
def test_names_are_those_of_columns_and_of_arguments(name, said):
    found = problems({name: [1], "other": [2]})
    assert list(found) == [(name,)]
    assert said in found[(name,)]
    assert grids.check({"zipped": [1], "lambda_": [2], "pointed": [3]})


def test_names_that_results_tables_keep_are_known_here():
    assert fields.RESERVED_COLUMNS == RESERVED


@pytest.mark.parametrize(
    "form, below, said",
    [
        (5, (), "is 5: allowed is a list of values, also of one, or another form: [1, 2, 3], {range:"),
        ("x", (), 'is "x": allowed is a list of values'),
        (None, (), "is empty (null): allowed is a list of values"),
        ([], (), "is empty: allowed is one value or more"),
        ([1, None], (1,), "is empty (null): allowed is text, a number, true or false"),
        ([1, [2]], (1,), "is a list of 1: allowed is text"),
        ([math.nan], (0,), "is nan: allowed is text, a number, true or false (numbers are finite)"),
        ([UnquotedDate("2020-01-01")], (0,), 'quote it: "2020-01-01"'),
        ([2**64 + 1], (0,), "more digits than a number can keep: allowed are those of 64 bits; quote it"),
        ([1, "x"], (1,), 'is "x", but the first value is 1: allowed on one axis is one type, here numbers'),
        ([True, 1], (1,), "is 1, but the first value is true: allowed on one axis is one type, here true and false"),
        ([1, 2, 1.0], (2,), "is 1.0, as is value 1: allowed is each value once"),
        (["x", "y", "y"], (2,), 'is "y", as is value 2'),
        ([2**53 + 1, 0.5], (), "has whole numbers that no double keeps"),
        ({}, (), "is a mapping with no key: allowed is [1, 2, 3]"),
        ({"rnage": [1, 2, 1]}, (), "is a mapping with rnage: allowed is [1, 2, 3], {range: [start, stop, step]}"),
        ({"range": [1, 2, 1], "count": 3}, (), "is a mapping with range, count"),
        ({"root": 3}, (), "is a mapping with root"),
        ({"range": [1, 2]}, ("range",), "is a list of 2: allowed is a list of 3, [start, stop, step]"),
        ({"range": 3}, ("range",), "is 3: allowed is a list of 3"),
        ({"range": [1, 2, "0.1"]}, ("range", 2), 'is "0.1": allowed is a number, without quotes'),
        ({"range": [1, None, 1]}, ("range", 1), "is empty (null): allowed is a number"),
        ({"range": [True, 2, 1]}, ("range", 0), "is true: allowed is a number"),
        ({"range": [1, 2, 0]}, ("range", 2), "is 0: allowed is a step above or below 0"),
        ({"range": [1, 2, -0.5]}, ("range", 2), "is -0.5, which leads from 1 away from 2: turn its sign"),
        ({"range": [2, 1, 0.5]}, ("range", 2), "leads from 2 away from 1"),
        ({"range": [0, 1e9, 1]}, ("range",), "has 1,000,000,001 values: allowed are up to 100,000,000"),
        ({"range": [0, 1e300, 1e-300]}, ("range",), "has about 10^600 values"),
        ({"range": [1e17, 1.0000000001e17, 0.5]}, ("range",), "neighbours are the same double"),
        ({"linspace": [1, 2]}, ("linspace",), "allowed is a list of 3, [start, stop, count]"),
        ({"linspace": [1, 2, 1]}, ("linspace", 2), "is 1: allowed is a whole number of 2 or more"),
        ({"linspace": [1, 2, 2.5]}, ("linspace", 2), "is 2.5: allowed is a whole number"),
        ({"linspace": [1, 1, 2]}, ("linspace", 1), "is 1, as is the start"),
        ({"linspace": [1, 1.000000000000001, 9]}, ("linspace",), "neighbours are the same double"),
        ({"count": 0}, ("count",), "is 0: allowed is a whole number of 1 or more, up to 100,000,000"),
        ({"count": 10**9}, ("count",), "up to 100,000,000"),
        ({"count": 5, "root": -1}, ("root",), "is -1: allowed is a whole number of 0 or more"),
    ],
)
def test_axes_refused(form, below, said):
    assert said in problem(form, *below)


def test_all_problems_come_at_once():
    found = problems(
        [{"a": [1, None, [2]], "zip": {"b": 3, "c": {"count": 0}}}, {"point": [1]}, {"d": [1]}, {"d": [1]}]
    )
    keys = [(0, "a", 1), (0, "a", 2), (0, "zip", "b"), (0, "zip", "c", "count"), (1, "point"), (3,)]
    assert list(found) == keys
    assert found[(3,)] == "is the same grid as item 2: allowed is each point once"


@pytest.mark.parametrize(
    "value, where, said",
    [
        ({"a": [1], "zip": {"a": [1], "b": [2]}}, ("zip", "a"), 'is "a", beside "a": allowed is each name once'),
        ({"n": [1], "N": [2]}, ("N",), 'is "N", beside "n": allowed is each name once, in one case'),
        ({"zip": [{"a": [1], "b": [1]}, {"A": [1], "c": [1]}]}, ("zip", 1, "A"), 'beside "a"'),
        ([{"n": [1]}, {"N": [2]}], (1, "N"), 'is "N", but "n" in a grid above'),
        ([{"n": [1]}, {"n": ["x"]}], (1, "n"), "is text, but numbers in a grid above: allowed is one type"),
        ([{"n": [True]}, {"n": {"count": 2}}], (1, "n"), "is numbers, but true and false in a grid above"),
        ([{"n": {"count": 2}}, {"n": [0.5]}], (0, "n"), "has whole numbers that no double keeps"),
        ([{"n": {"range": [0, 2**53 + 2, 2**50]}}, {"n": [0.5]}], None, ""),
        ([{"n": {"range": [1, 2**54, 2**50]}}, {"n": [0.5]}], (0, "n"), "allowed are up to 2^53"),
    ],
)
def test_axes_go_together(value, where, said):
    if where is None:
        assert len(grids.check(value)) == 2
        return
    found = problems(value)
    assert list(found) == [where]
    assert said in found[where]


@pytest.mark.parametrize(
    "value, said",
    [
        ({"a": {"range": [1, 10**4, 1]}, "b": {"range": [1, 10**4 + 1, 1]}}, "has 100,010,000 points"),
        ({"a": {"range": [1, 10**6, 1]}, "b": {"count": 10**6}}, "has 1,000,000,000,000 points: allowed are up to"),
        ([{"a": {"count": 6 * 10**7}}, {"a": {"count": 5 * 10**7}}], "has 110,000,000 points"),
        ({f"a{i}": {"count": 10**8} for i in range(5000)}, "has about 10^40000 points"),
    ],
)
def test_too_many_points_are_refused_at_once(value, said):
    start = time.process_time()
    found = problems(value)
    assert time.process_time() - start < 5
    assert list(found) == [()]
    assert said in found[()]
    assert "its longest axes: " in found[()]


def test_a_hundred_million_points_are_allowed():
    assert grids.check({"a": {"range": [1, 10**4, 1]}, "b": {"count": 10**4}})


def test_what_is_kept_has_numbers_as_they_are_written():
    given = {"a": (1.0, 2.5), "b": {"range": [0.0, 1e3, 10]}, "zip": {"c": [-0.0, 1], "d": ["é", "1"]}}
    assert repr(grids.check(given)) == repr(
        ({"a": [1.0, 2.5], "b": {"range": [0.0, 1000.0, 10.0]}, "zip": [{"c": [-0.0, 1], "d": ["é", "1"]}]},)
    )
    assert repr(
        grids.check({"a": {"range": [0, 9, 3]}, "b": {"linspace": [0, 1.0, 3.0]}, "c": {"count": 2.0}})
    ) == repr(({"a": {"range": [0, 9, 3]}, "b": {"linspace": [0, 1.0, 3]}, "c": {"count": 2}},))


def test_what_a_point_makes_doubles_of_is_refused_where_no_double_keeps_it():
    assert problem({"range": [2**53 + 1, 2**53 + 9.0, 2]}, "range") == (
        "has 9007199254740993, which no double keeps: write all three without a point, or up to 2^53"
    )
    assert "has whole numbers that no double keeps" in problem([2**53 + 1, 1.0])
    assert grids.check({"a": {"range": [2**53 + 1, 2**53 + 9, 2]}})


@pytest.mark.parametrize(
    "form, below, said",
    [
        ([1, 2, 3], ("ratios",), "allowed are four whole numbers"),
        ([1, 2, 3, 4.0], ("ratios",), "allowed are four whole numbers"),
        ([1, 0, 3, 4], ("ratios",), "a step other than 0"),
        ([1, 2, 0, 4], ("ratios",), "a count and a denominator above 0"),
        ([1, 2, 3, 0], ("ratios",), "a count and a denominator above 0"),
    ],
)
def test_recorded_forms_refused(form, below, said):
    assert said in problem({"ratios": form}, *below)


@pytest.mark.parametrize("key, value", [("bits", 63), ("bits", 32), ("first", -1), ("first", 2**31 - 10**8)])
def test_seeds_have_31_bits(key, value):
    assert "allowed is a whole number" in problem({"count": 2, key: value}, key)
    assert grids.check({"a": {"count": 10**8, "bits": 31, "first": 2**31 - 1 - 10**8}})


KEYS = st.sampled_from(["a", "b", "zip", "range", "linspace", "count", "root", "point"]) | st.text(max_size=3)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)


@given(ANY)
def test_anything_is_a_sweep_or_has_problems(value):
    try:
        found = grids.check(value)
    except Problems as several:
        assert several.located
        assert all(said.isprintable() and "allowed" in said for _, said in several.located)
    else:
        assert grids.check(list(found)) == found
