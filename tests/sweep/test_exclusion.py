"""What is left out of a sweep is just what its points and conditions say."""

from __future__ import annotations

import ast
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.sweep import Sweep
from ems.sweep.conditions import parse
from ems.sweep.exclusion import bitmap, count, each_of_job, identity, of_job

TYPES = {"m": "int64", "n": "int64", "x": "float64", "kind": "text", "fast": "bool"}
GRIDS: list[dict[str, Any]] = [
    {"m": [1, 2, 3], "n": {"range": [1, 5, 1]}, "x": [0.5, 2.0, 7.25], "kind": ["a", "b"], "fast": [True, False]},
    {"n": [2, 9], "zip": [{"m": [1, 2, 4], "x": {"linspace": [0, 1, 3]}, "kind": ["b", "b", "c"]}]},
    {"m": {"range": [5, 40, 1]}},
]
NUMBERS = st.recursive(
    st.sampled_from(["m", "n", "x", "1", "2.5", "-3", "0.1"]),
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner),
    max_leaves=4,
)
COMPARISONS = st.one_of(
    st.builds("{} {} {}".format, NUMBERS, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), NUMBERS),
    st.builds("{} < {} <= {}".format, NUMBERS, NUMBERS, NUMBERS),
    st.sampled_from(["kind == 'b'", "kind < 'b'", "fast", "fast != True", "not fast"]),
)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=4,
)
POINTS = st.dictionaries(st.sampled_from(["m", "n"]), st.integers(0, 10), min_size=1) | st.fixed_dictionaries(
    {"x": st.sampled_from([0.5, 1.0, 2.0, 3.0])}, optional={"kind": st.sampled_from(["a", "b", "z"])}
)


def numbers(bits: bytes) -> set[int]:
    return {point for point in range(8 * len(bits)) if bits[point // 8] >> point % 8 & 1}


def one_by_one(sweep: Sweep, item: Any) -> set[int]:
    """By Python's own words, point by point."""
    found = set()
    names = names_of(item) if isinstance(item, str) else set(item)
    for point in range(len(sweep)):
        parameters = sweep.parameters(point)
        if parameters.keys() >= names and (
            eval(item, {}, parameters) if isinstance(item, str) else all(parameters[k] == v for k, v in item.items())
        ):
            found.add(point)
    return found


def names_of(text: str) -> set[str]:
    return {each.id for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Name)}


@given(st.lists(CONDITIONS.filter(names_of) | POINTS, max_size=3), st.permutations(GRIDS))
def test_what_is_left_out_and_what_is_kept_are_all(exclude: list[Any], grids: list[dict[str, Any]]) -> None:
    sweep = Sweep.of(grids)
    expected = [one_by_one(sweep, item) for item in exclude]
    job = {"sweep": grids, "exclude": exclude}
    assert [numbers(bits) for bits in each_of_job(job)] == expected
    found = of_job(job)
    assert numbers(found) == set().union(*expected)
    assert count(found) == len(set().union(*expected))


def test_nothing_is_left_out_where_nothing_is_said() -> None:
    assert of_job({"sweep": GRIDS}) == of_job({"sweep": GRIDS, "exclude": []}) == b""
    assert count(b"") == 0


def test_axes_that_move_together_may_have_a_value_twice() -> None:
    sweep = Sweep.of([{"zip": [{"m": [1, 2, 3], "k": [7, 7, 8]}], "s": [0, 1]}])
    assert numbers(bitmap(sweep, {"k": 7})) == {0, 1, 2, 3}
    assert numbers(bitmap(sweep, {"k": 7, "m": 2})) == {2, 3}
    assert numbers(bitmap(sweep, {"k": 7, "m": 3})) == set()


@pytest.mark.parametrize("item", ["m > n", "s < 3", "a > m", {"a": 5, "s": 77}])
def test_a_hundred_million_points_are_a_matter_of_a_second(item: Any) -> None:
    axes = {"range": [1, 100, 1]}
    sweep = Sweep.of([dict.fromkeys(["a", "m", "n", "s"], axes)])
    tracemalloc.start()
    began = time.process_time()
    found = bitmap(sweep, item)
    took_s = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * 10**6 and took_s < 30
    expected = {"m > n": 49_500_000, "s < 3": 2_000_000, "a > m": 49_500_000}
    assert count(found) == (expected[item] if isinstance(item, str) else 10_000)


def test_a_division_by_zero_is_told_unless_it_is_guarded() -> None:
    sweep = Sweep.of([{"m": [1, 6], "n": [0, 2]}])
    with pytest.raises(ValueError, match=r"has no value for some point .*division by zero.*n != 0 and"):
        bitmap(sweep, "m / n > 2")
    assert numbers(bitmap(sweep, "n != 0 and m / n > 2")) == {3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("m > q", "has q, which is not a parameter of the sweep"),
        ("n", "is a number, which says of no point"),
        ("m +", "cannot be read"),
        ("n > kind", "compares a number with text"),
        ("m ** 2 > 1", r"has `m \*\* 2`: allowed are"),
        ("m % 2 == 1", "has `m % 2`"),
        ("~m > 1", "has `~m`"),
        ("f(n) > 1", r"has `f\(n\)`"),
        ("__import__('os').system('true') == 0", "has `__import__"),
        ("n.real > 1", "has `n.real`"),
        ("[n][0] > 1", r"has `\[n\]\[0\]`"),
        ("n in kind", "has `in` or `is`"),
        ("(lambda: n)() > 1", "has `"),
        ("n > 1 if fast else n > 2", "has `"),
        ("(n := 3) > 2", "has `"),
        ("f'{n}' == kind", "has `"),
        ("n > 1 and m", "has a number beside and"),
        ("not n", "has a number beside not"),
        ("fast > fast", "has > between true and false"),
        ("kind + 'a' == 'b'", "has text beside +"),
        ("fast + 1 > 0", "has true or false beside +"),
        ("1 < 2", "has no parameter"),
        ("n > 1e999", "has `1e309`"),
        ("n > 1j", "has `1j`"),
        ("n > None", "has `None`"),
        ("n > 99999999999999999999999999", "has `9999"),
        ("m > 1 " + "and m > 1 " * 200, "has 2,006 characters"),
        ("(" * 400 + "m", "cannot be read"),
        ("-" * 900 + "m > 1", "too many to be read|cannot be read"),
    ],
)
def test_a_condition_can_do_nothing_but_compare(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text, TYPES)  # type: ignore[arg-type]


def test_conditions_that_say_the_same_have_one_identity() -> None:
    sweep = Sweep.of(GRIDS)
    same = identity(sweep, ["m>n", {"m": 1, "n": 2}, " fast==true", "x < 2.0", "m > n"])
    assert same == identity(sweep, ["x<2", "(m  >  n)", "fast == True", {"n": 2, "m": 1}])
    assert same != identity(sweep, ["m > n", {"m": 1, "n": 2}, "fast"])
    assert identity(sweep, ["m > n"]) == [[">", ["name", "m"], ["name", "n"]]]  # ids of experiments depend on it
