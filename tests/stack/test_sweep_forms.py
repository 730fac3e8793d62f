"""What is recorded has each combination once, in the types that were written; what is hashed is as it always was."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ems.stack import sweep_forms
from ems.stack import sweep_grids as grids
from ems.stack.keys import Problems
from ems.sweep import Sweep
from ems.sweep.seeds import seed, wide_seed

NUMBERS = st.lists(st.sampled_from([0, 1, 2, 3, 5, 8]), min_size=1, max_size=5, unique=True)
DOUBLES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=5, unique=True)
FORMS = st.one_of(
    NUMBERS,
    DOUBLES,
    st.builds(
        lambda a, n, d: {"range": [a, a + n * d, d]}, st.integers(-3, 6), st.integers(0, 9), st.sampled_from([1, 2, -1])
    ),
    st.builds(lambda a, n, d: {"range": [a, a + n * d, d]}, st.integers(-2, 2), st.integers(0, 9), st.just(0.25)),
    st.builds(lambda a, n: {"linspace": [a, a + 2, n]}, st.integers(0, 2), st.integers(2, 13)),
)
SEEDS = st.builds(
    lambda n, r, f: {"count": n, "root": r, "first": f},
    st.integers(1, 6),
    st.sampled_from([0, 0, 7]),
    st.integers(0, 3),
)


@st.composite
def grid(draw):
    """Axes a, b, c alone or some of them moving together; `s` are seeds."""
    names = draw(st.sampled_from(["a", "ab", "ab", "abc", "abc", "abs"]))
    zipped = draw(st.sampled_from(["", "", "ab", "ac", "bc", "abc"]))
    together = [name for name in names if name in zipped]
    made = {name: draw(SEEDS if name == "s" else FORMS) for name in names}
    if len(together) < 2:
        return made
    length = draw(st.integers(1, 4))
    columns = {name: draw(st.permutations([0, 1, 2, 3, 0.5]))[:length] for name in together}
    return {name: form for name, form in made.items() if name not in together} | {"zip": columns}


def points(recorded):
    sweep = Sweep.of(recorded)
    return [json.dumps(sweep.parameters(index)) for index in range(len(sweep))]


def written(given_grids):
    """The points of grids as they are written, in their order, each once."""
    marked = [sweep_forms.recorded([one])[0] for one in given_grids]
    return list(dict.fromkeys(points(marked)))


def checked(several):
    try:
        return grids.check(several)
    except Problems as problems:
        assert all("the same grid" in said for _, said in problems.located), problems
        return None


@settings(max_examples=600, deadline=None)
@given(st.lists(grid(), min_size=1, max_size=4))
@example([{"t": {"linspace": [0, 1, 6]}}, {"t": {"linspace": [0, 1, 11]}}])
@example([{"zip": {"a": [0, 1, 2], "b": [3, 1, 8]}}, {"a": [0, 1, 2, 3], "b": [1, 3]}])
@example([{"a": [0, 1, 2, 3], "b": [1, 3]}, {"zip": {"a": [0, 1, 2], "b": [3, 1, 8]}}])
@example([{"a": [1, 2, 3]}, {"a": [1.0]}])
def test_each_combination_is_recorded_once(several):
    if kept := checked(several):
        found = points(sweep_forms.recorded(kept))
        assert len(set(found)) == len(found)
        assert sorted(found) == sorted(written(kept))
        assert found[: len(points([kept[0]]))] == written(kept)[: len(points([kept[0]]))]


@given(st.lists(grid(), min_size=1, max_size=3))
def test_what_is_recorded_is_valid_and_recorded_as_it_stands(several):
    if kept := checked(several):
        found = json.loads(json.dumps(sweep_forms.recorded(kept), allow_nan=False))
        again = grids.check(found)
        assert points(again) == points(found)
        assert points(sweep_forms.recorded(again)) == points(found)


def test_a_later_grid_keeps_what_the_earlier_ones_lack():
    several = grids.check([{"theta": {"linspace": [0, 1, 6]}}, {"theta": {"linspace": [0, 1, 11]}}])
    assert sweep_forms.recorded(several) == (
        {"theta": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]},
        {"theta": [0.1, 0.3, 0.5, 0.7, 0.9]},
    )


def test_grids_around_one_point_share_just_it():
    around = [{name: [0, 1, 2, 3] if name == moving else [1] for name in "abcdef"} for moving in "abcdef"]
    found = Sweep.of(sweep_forms.recorded(grids.check(around)))
    assert len(found) == 6 * 3 + 1


@pytest.mark.parametrize(
    "several, count, parts",
    [
        ([{"x": {"range": [0, 5 * 10**7 - 1, 1]}}, {"x": {"range": [25 * 10**6, 75 * 10**6 - 1, 1]}}], 75 * 10**6, 2),
        ([{"x": {"range": [0, 4 * 10**7, 2]}}, {"x": {"range": [0, 4 * 10**7, 1]}}], 4 * 10**7 + 1, 2),
        ([{"x": {"linspace": [0, 1, 101]}}, {"x": {"linspace": [0, 1, 10**7 + 1]}}], 10**7 + 1, 101),
        ([{"x": {"linspace": [0, 1, 10**6 + 1]}}, {"x": {"linspace": [0, 1, 3 * 10**6 + 1]}}], 3 * 10**6 + 1, 3),
        ([{"s": {"count": 10**6}, "n": [1]}, {"s": {"count": 10**7}, "n": [1, 2, 3]}], 3 * 10**7, 3),
        (
            [
                {"a": {"range": [0, 4999, 1]}, "b": {"linspace": [0, 1, 100]}, "seed": {"count": 100}},
                {"a": {"range": [4000, 8999, 1]}, "b": {"linspace": [0, 1, 100]}, "seed": {"count": 90}},
            ],
            5 * 10**7 + 4000 * 100 * 90,
            2,
        ),
    ],
)
def test_long_grids_are_compared_without_going_through_them(several, count, parts):
    began = time.process_time()
    tracemalloc.start()
    try:
        found = sweep_forms.recorded(grids.check(several))
        sweep = Sweep.of(json.loads(json.dumps(found)))
        last = list(sweep.iterate(len(sweep) - 3, len(sweep)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(sweep), len(found)) == (count, parts)
    assert len(last) == 3
    assert peak < 20_000_000
    assert time.process_time() - began < 10


LONG = {"range": [1, 2000, 1]}


@pytest.mark.parametrize(
    "several, said",
    [
        (
            [{"zip": dict.fromkeys("ab", LONG)}, dict.fromkeys("ab", LONG)],
            "overlap in so many places that over 1,000 parts",
        ),
        (
            [{"s": {"count": 2 * 10**6}}, {"s": {"count": 2 * 10**6, "root": 1}}],
            "axes too long to be compared",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(several, said):
    with pytest.raises(Problems) as raised:
        grids.check(several)
    ((where, problem),) = raised.value.located
    assert where == ()
    assert said in problem and "allowed" in problem


def test_seeds_of_other_roots_and_written_ones_are_compared_by_value():
    third = seed(0, 2)
    recorded = sweep_forms.recorded(grids.check([{"s": [5, third]}, {"s": {"count": 4}}]))
    assert recorded[1] == {"s": [seed(0, 0), seed(0, 1), seed(0, 3)]}
    recorded = sweep_forms.recorded(grids.check([{"s": {"count": 2000}}, {"s": [5, third]}]))
    assert recorded[1] == {"s": [5]}


# What ids are computed from: were one of these to change, labs would run experiments again.
@pytest.mark.parametrize(
    "given_grids, expected",
    [
        ([{"a": [1.0, 2.0]}], [{"a": [1, [1, 2]]}]),
        ([{"a": [1.0, 2.5]}], [{"a": [1, [1.0, 2.5]]}]),
        ([{"a": {"range": [0.0, 5.0, 1.0]}}], [{"a": [1, [0, 1, 2, 3, 4, 5]]}]),
        ([{"a": {"range": [1, 9.5, 3]}}], [{"a": [1, [1, 4, 7]]}]),
        ([{"a": {"linspace": [0.0, 4.0, 5.0]}}], [{"a": [1, [0.0, 1.0, 2.0, 3.0, 4.0]]}]),
        ([{"a": [10**20, 1e19]}], [{"a": [1, [1e20, 1e19]]}]),
        ([{"a": [1e22, 3]}], [{"a": [1, [1e22, 3.0]]}]),
        ([{"a": [-0.0, 1.0]}], [{"a": [1, [0, 1]]}]),
        ([{"a": [1.0, 2.0]}, {"a": [2.5]}], [{"a": [1, [1.0, 2.0]]}, {"a": [1, [2.5]]}]),
        ([{"a": [1.0, 2.0]}, {"a": [2, 3]}], [{"a": [1, [1, 2]]}, {"a": [1, [2, 3]]}]),
        ([{"s": {"count": 5}}], [{"s": [1, {"count": 5, "root": 0}]}]),
        ([{"s": {"count": 5, "root": 7, "bits": 31}}], [{"s": [1, {"count": 5, "root": 7}]}]),
        (
            [{"a": {"range": [0, 200000, 1.0]}}],
            [{"a": [1, {"count": 200001, "first": 0, "last": 200000, "over": []}]}],
        ),
    ],
)
def test_ids_do_not_know_of_points_bits_and_overlaps(given_grids, expected):
    found = Sweep.of(sweep_forms.hashed(grids.check(given_grids))).identity()
    assert json.dumps(found, sort_keys=True) == json.dumps(expected)


def test_other_seeds_have_another_id():
    forms = [{"count": 5}, {"count": 5, "first": 1}, {"count": 5, "root": 1}]
    found = {json.dumps(Sweep.of(sweep_forms.hashed(grids.check({"s": form}))).identity()) for form in forms}
    assert len(found) == 3


def test_a_grid_recorded_before_keeps_its_seeds_types_and_points():
    before = [{"a": [1, 2], "s": {"count": 1}}, {"a": {"range": [1, 9.5, 1]}, "s": {"count": 1, "root": 0}}]
    sweep = Sweep.of(before)
    assert (len(sweep), dict(sweep.types)) == (11, {"a": "int64", "s": "int64"})
    assert sweep.parameters(0) == sweep.parameters(2) == {"a": 1, "s": wide_seed(0, 0)}


def test_parts_of_an_axis_are_written_in_a_form_that_brings_them_back():
    long = {"x": {"linspace": [0, 1, 3 * 10**4 + 1]}}
    found = sweep_forms.recorded(grids.check([{"x": {"linspace": [0, 1, 10**4 + 1]}}, long]))
    assert [list(one["x"]) for one in found[1:]] == [["ratios"], ["ratios"]]
    everything = Sweep.of(found)
    expected = Sweep.of([long])
    assert sorted(point["x"] for point in everything.iterate(0, len(everything))) == [
        point["x"] for point in expected.iterate(0, len(expected))
    ]
