"""Points of sweeps by number, against independent expansions: itertools, numpy, decimals."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from decimal import Decimal
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ems
from ems.stack import sweep_grids as grids
from ems.sweep import OtherType, Sweep
from ems.sweep.seeds import number_of, seed, wide_seed
from tests.documentation import Page

TOP = Path(ems.__file__).parents[1]
FORMULA = next(block for block in Page(TOP / "docs/sweeps.md").blocks("python") if "SeedSequence" in block)
LARGE = {"a": {"range": [0, 9999, 1]}, "b": {"linspace": [0, 1, 100]}, "seed": {"count": 100}}


def points(*given):
    sweep = Sweep.of(grids.check(list(given)))
    return [sweep.parameters(index) for index in range(len(sweep))]


def column(form):
    return [point["a"] for point in points({"a": form})]


def exactly(value):
    """Equal in value and type."""
    return json.dumps(value)


def test_the_last_name_varies_fastest():
    assert points({"b": [1, 2], "a": ["x", "y"]}) == [
        {"a": "x", "b": 1},
        {"a": "x", "b": 2},
        {"a": "y", "b": 1},
        {"a": "y", "b": 2},
    ]


def test_a_zip_group_stands_where_its_smallest_name_does():
    sweep = Sweep.of(grids.check({"m": [1, 2], "zip": {"z": ["p", "q"], "b": [True, False]}, "a": [0, 5]}))
    assert sweep.names == ("a", "b", "m", "z")
    assert [tuple(sweep.parameters(index).values()) for index in range(len(sweep))] == [
        (a, b, m, z) for a in (0, 5) for b, z in ((True, "p"), (False, "q")) for m in (1, 2)
    ]


def test_grids_follow_one_another_and_leave_out_what_they_lack():
    found = points({"a": [1, 2]}, {"a": [3], "b": ["x", "y"]})
    assert found == [{"a": 1}, {"a": 2}, {"a": 3, "b": "x"}, {"a": 3, "b": "y"}]


@pytest.mark.parametrize(
    "given, types",
    [
        ([{"a": [1, 2]}, {"a": [2.5]}], {"a": "float64"}),
        ([{"a": {"range": [1, 3, 1]}}, {"a": [2.5]}], {"a": "float64"}),
        ([{"a": [1, 0.5]}], {"a": "float64"}),
        ([{"a": [1e19, 1e20]}], {"a": "float64"}),
        ([{"a": {"range": [1e19, 3e19, 1e19]}}], {"a": "float64"}),
        ([{"b": [True], "a": ["x"], "c": {"count": 2}, "d": {"linspace": [0, 2, 3]}}],
         {"a": "text", "b": "bool", "c": "int64", "d": "float64"}),
    ],
)  # fmt: skip
def test_a_parameter_has_one_type_in_all_points(given, types):
    assert dict(Sweep.of(grids.check(given)).types) == types
    kinds = {"int64": int, "float64": float, "text": str, "bool": bool}
    for point in points(*given):
        assert {name: type(value) for name, value in point.items()} == {name: kinds[types[name]] for name in point}


@pytest.mark.parametrize(
    "form, values",
    [
        ([0.1, 1, 3], [0.1, 1.0, 3.0]),
        ({"range": [0.1, 0.5, 0.1]}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"range": [0, 1, 0.3]}, [0.0, 0.3, 0.6, 0.9]),
        ({"range": [1, 10, 3]}, [1, 4, 7, 10]),
        ({"range": [1, 9.5, 3]}, [1.0, 4.0, 7.0]),
        ({"range": [1.0, 10, 3]}, [1.0, 4.0, 7.0, 10.0]),
        ({"range": [1, 10, 3.0]}, [1.0, 4.0, 7.0, 10.0]),
        ({"range": [3.0, 1.0, -1.0]}, [3.0, 2.0, 1.0]),
        ([100.0, 1000.0], [100.0, 1000.0]),
        ([100, 1e3], [100.0, 1000.0]),
        ([-0.0, 1], [-0.0, 1.0]),
        ({"range": [3, 1, -1]}, [3, 2, 1]),
        ({"range": [0.3, -0.3, -0.2]}, [0.3, 0.1, -0.1, -0.3]),
        ({"range": [5, 5, 1]}, [5]),
        ({"range": [1e-3, 3e-3, 1e-3]}, [0.001, 0.002, 0.003]),
        ({"range": [2**63 - 2, 2**63 - 1, 1]}, [2**63 - 2, 2**63 - 1]),
        ({"linspace": [0, 1, 11]}, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ({"linspace": [1, -1, 3]}, [1.0, 0.0, -1.0]),
        ({"linspace": [0, 1, 4]}, [0.0, 1 / 3, 2 / 3, 1.0]),
        ({"linspace": [-1.7e308, 1.7e308, 3]}, [-1.7e308, 0.0, 1.7e308]),
    ],
)
def test_values_are_those_that_a_person_would_write(form, values):
    assert exactly(column(form)) == exactly(values)


@given(
    start=st.decimals(-1000, 1000, places=3),
    step=st.decimals("0.001", 10, places=3),
    count=st.integers(1, 60),
    sign=st.sampled_from([1, -1]),
)
def test_a_range_is_exact_in_decimals(start, step, count, sign):
    step *= sign
    written = [start + step * i for i in range(count)]
    form = {"range": [float(start), float(written[-1] + step * Decimal("0.5")), float(step)]}
    found = column(form)
    assert found == [float(value) for value in written]
    assert column({"range": [float(start), float(written[-1]), float(step)]}) == found


@given(st.integers(0, 2**63 - 1) | st.integers(0, 2**128 - 1), st.integers(0, 2**32 - 1))
@example(0, 0)
@example(2**64 - 1, 2**32 - 1)
def test_seeds_of_63_bits_are_the_streams_of_numpy(root, number):
    expected = np.random.SeedSequence(root, spawn_key=(number,)).generate_state(1, "uint64")[0] >> np.uint64(1)
    assert wide_seed(root, number) == int(expected)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1))
@example(0, 0)
@example(2**63 - 1, 2**31 - 1)
def test_seeds_are_those_that_the_manual_says_and_lead_back_to_their_numbers(root, number):
    names = {"numpy": np, "root": root, "i": number}
    exec(FORMULA, names)
    assert seed(root, number) == names["seed"]
    assert number_of(root, seed(root, number)) == number


def test_seeds_fit_every_language_and_none_comes_twice():
    """The kind: what EMS generates must fit the integers of R, Java, Octave and JavaScript, and 32-bit generators."""
    for root in (0, 1, 2**63 - 1):
        found = column({"count": 100_000, "root": root, "bits": 31})
        assert len(set(found)) == 100_000
        assert min(found) >= 0 and max(found) < 2**31
        np.random.RandomState(max(found))


def test_every_bit_of_a_seed_is_as_often_set_as_not_and_depends_on_each_bit_of_its_number():
    found = np.array(column({"count": 20_000, "root": 5, "bits": 31}))
    bits = found[:, None] >> np.arange(31) & 1
    assert abs(bits.mean(axis=0) - 0.5).max() < 0.02
    for flipped in range(15):
        other = np.array([seed(5, number ^ 1 << flipped) for number in range(20_000)])
        changed = (found ^ other)[:, None] >> np.arange(31) & 1
        assert abs(changed.mean(axis=0) - 0.5).max() < 0.05, flipped


def test_an_axis_of_seeds_goes_through_them_in_order():
    assert column({"count": 3, "bits": 31}) == [seed(0, 0), seed(0, 1), seed(0, 2)]
    assert column({"count": 2, "root": 7, "bits": 31}) == [seed(7, 0), seed(7, 1)]
    assert column({"count": 2, "first": 3, "bits": 31}) == [seed(0, 3), seed(0, 4)]


def test_an_axis_that_was_recorded_without_its_bits_keeps_its_seeds():
    assert column({"count": 3}) == column({"count": 3, "root": 0}) == [wide_seed(0, i) for i in range(3)]
    assert column({"count": 2, "root": 7}) == [wide_seed(7, 0), wide_seed(7, 1)]


LISTS = st.one_of(
    st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=4, unique=True),
    st.lists(st.text("abc", max_size=3), min_size=1, max_size=4, unique=True),
    st.lists(st.booleans(), min_size=1, max_size=2, unique=True),
)
FORMS = st.one_of(
    LISTS,
    st.builds(lambda a, n, d: {"range": [a, a + n * d, d]}, st.integers(-9, 9), st.integers(0, 4), st.integers(1, 5)),
    st.builds(lambda a, n: {"linspace": [a, a + 1, n]}, st.floats(-9, 9).map(lambda x: round(x, 2)), st.integers(2, 4)),
    st.builds(lambda n, r: {"count": n, "root": r}, st.integers(1, 4), st.integers(0, 2**40)),
)
NAMES = st.from_regex(r"[a-y][0-9_]{0,2}", fullmatch=True)


@st.composite
def one_grid(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    grid = {name: draw(FORMS) for name in names}
    others = draw(st.lists(NAMES.filter(lambda name: name not in names), max_size=3, unique=True))
    if len(others) > 1:
        length = draw(st.integers(1, 3))
        grid["zip"] = {name: draw(st.permutations(range(9)).map(lambda v: list(v[:length]))) for name in others}
    return grid


def expanded(grid):
    """All points of one grid, by itertools."""
    groups = [{name: column(form)} for name, form in grid.items() if name != "zip"]
    groups += [grid["zip"]] if "zip" in grid else []
    steps = [[dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True)]
             for group in sorted(groups, key=min)]  # fmt: skip
    merged = [{name: value for part in parts for name, value in part.items()} for parts in product(*steps)]
    return [dict(sorted(point.items())) for point in merged]


def shuffled(grid, data):
    names = data.draw(st.permutations(list(grid)))
    return {name: shuffled(grid[name], data) if name == "zip" else grid[name] for name in names}


@given(one_grid(), st.data())
def test_points_are_those_of_nested_loops_in_any_order_of_keys(grid, data):
    expected = [list(point.items()) for point in expanded(grid)]
    for written in (grid, shuffled(grid, data)):
        sweep = Sweep.of(grids.check(written))
        assert len(sweep) == len(expected)
        assert [list(sweep.parameters(index).items()) for index in range(len(sweep))] == expected
    assert len({exactly(dict(point)) for point in expected}) == len(expected)


@given(one_grid(), st.data())
def test_iterating_gives_the_same_points_from_anywhere(grid, data):
    longer = {name: form for name, form in grid.items() if name != "zip"} | {"z": ["new"]}
    sweep = Sweep.of(grids.check([grid, longer]))
    start = data.draw(st.integers(0, len(sweep)))
    stop = data.draw(st.integers(start, len(sweep)))
    found = [list(point.items()) for point in sweep.iterate(start, stop)]
    assert found == [list(sweep.parameters(index).items()) for index in range(start, stop)]


@given(one_grid())
def test_json_brings_the_same_sweep_back(grid):
    checked = grids.check(grid)
    back = json.loads(json.dumps(checked))
    assert grids.check(back) == checked
    assert Sweep.of(back).identity() == Sweep.of(checked).identity()
    assert len(json.dumps(Sweep.of(checked).identity(), allow_nan=False)) > 2


def test_points_outside_are_refused():
    sweep = Sweep.of(grids.check({"a": [1, 2]}))
    for index in (-1, 2):
        with pytest.raises(IndexError, match="of a sweep of 2 points"):
            sweep.parameters(index)
    with pytest.raises(IndexError, match="points 0 to 2 of a sweep of 2"):
        sweep.iterate(0, 3)


def test_a_hundred_million_points_take_no_memory():
    tracemalloc.start()
    try:
        sweep = Sweep.of(grids.check(LARGE))
        found = list(sweep.iterate(len(sweep) - 1000, len(sweep)))
        long = Sweep.of(grids.check({"a": {"range": [0, 1, 2e-8]}}))
        last = list(long.iterate(49_999_999, 50_000_001))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(sweep) == 10**8
    assert found[-1] == sweep.parameters(10**8 - 1) == {"a": 9999, "b": 1.0, "seed": wide_seed(0, 99)}
    assert last == [{"a": 0.99999998}, {"a": 1.0}]
    assert peak < 5_000_000


def identity(*given):
    return Sweep.of(grids.check(list(given))).identity()


@pytest.mark.parametrize(
    "one, same",
    [
        ({"a": [1, 2, 3]}, {"a": {"range": [1, 3, 1]}}),
        ({"a": [0, 0.5, 1]}, {"a": {"linspace": [0, 1, 3]}}),
        ({"a": {"range": [0, 1, 5e-6]}}, {"a": {"linspace": [0, 1, 200_001]}}),
        ({"a": {"range": [0, 200_000, 1]}}, {"a": {"range": [0, 200_000, 1]}}),
        ({"a": {"count": 5}}, {"a": {"count": 5, "root": 0}}),
        ({"a": [1.0, 2.0]}, {"a": {"range": [1.0, 2.0, 1.0]}}),
        ({"zip": {"a": [1, 2], "b": [3, 4]}}, {"zip": [{"b": [3, 4], "a": [1, 2]}]}),
    ],
)
def test_the_identity_is_that_of_the_points(one, same):
    assert points(one)[:10] == points(same)[:10]
    assert exactly(identity(one)) == exactly(identity(same))


@pytest.mark.parametrize(
    "one, other",
    [
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": [1, 2]}, {"b": [1, 2]}),
        ({"a": [1, 2]}, {"a": {"linspace": [1, 2, 2]}}),
        ({"a": [1, 2]}, {"a": ["1", "2"]}),
        ({"a": [1, 2], "b": [1, 2]}, {"zip": {"a": [1, 2], "b": [1, 2]}}),
        ({"a": {"count": 5}}, {"a": {"count": 5, "root": 1}}),
        ({"a": {"range": [0, 200_000, 1]}}, {"a": {"linspace": [0, 200_000, 200_001]}}),
        ({"a": {"range": [0, 200_000, 1]}}, {"a": {"range": [0, 200_001, 1]}}),
    ],
)
def test_other_points_have_another_identity(one, other):
    assert exactly(identity(one)) != exactly(identity(other))


MODULES = ("sweep", "sweep.axes", "sweep.seeds")


def test_the_standard_library_is_enough():
    script = f"import sys; sys.path.insert(0, {str(TOP)!r}); import ems.sweep; print(*sys.modules)"
    alone = [sys.executable, "-I", "-S", "-c", script]
    loaded = subprocess.run(alone, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name.partition(".")[0] == "ems"} == {
        "ems",
        "ems.base",
        "ems.base.version",
        *(f"ems.{name}" for name in MODULES),
    }


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), min_size=1, max_size=5))
def test_an_extended_sweep_has_the_points_of_all(lists):
    grids = [{"n": values, "x": [0.5]} for values in lists]
    sweep = Sweep.of([])
    for grid in grids:
        sweep = sweep.extended([grid])
    assert sweep == Sweep.of(grids)
    assert list(sweep.iterate(0, len(sweep))) == [{"n": n, "x": 0.5} for values in lists for n in values]
    later = sweep.since(1)
    assert (later.starts[0], len(later)) == (len(lists[0]), len(sweep))
    assert later.grids == sweep.grids[1:]


def test_a_sweep_is_not_extended_by_another_type():
    sweep = Sweep.of([{"n": [1, 2], "x": [1.0]}])
    assert repr(sweep.extended([{"x": [3], "m": ["a"]}]).parameters(2)) == "{'m': 'a', 'x': 3.0}"
    for other in ([1.5], ["a"], [True], {"linspace": [0, 1, 3]}):
        with pytest.raises(OtherType, match=r"n is (float64|text|bool), and was int64"):
            sweep.extended([{"n": other}])
