"""Rounds in stack files, and what proposers answer."""

from __future__ import annotations

import json

import pytest

from ems.stack import proposed, spec
from ems.sweep import Sweep
from tests.stack.specs import EXPERIMENT, changed, faults

ROUNDS = {**EXPERIMENT, "job": {"function": "a.b:f", "propose": "a.b:g"}, "limits": {"max_points": 9, "max_rounds": 3}}
SWEEP = Sweep.of([{"n": [1, 2], "x": [0.5], "t": ["a"]}])


def test_the_first_round_may_be_left_out():
    found = spec.parse("experiment", ROUNDS)
    assert (found.job.sweep, found.job.propose, found.limits.max_points) == ((), "a.b:g", 9)
    assert spec.from_json("experiment", spec.to_json(found)) == found
    assert "sweep" not in json.loads(spec.to_json(found))["job"]


def test_what_has_no_rounds_is_recorded_as_before():
    found = json.loads(spec.to_json(spec.parse("experiment", EXPERIMENT)))
    assert found["limits"] == {"limit_usd": None, "max_hours": None}
    sweep = spec.parse("experiment", changed(EXPERIMENT, "job", {"function": "a:b", "sweep": {"n": [1]}}))
    assert "propose" not in json.loads(spec.to_json(sweep))["job"]


@pytest.mark.parametrize(
    ("data", "key", "said"),
    [
        (changed(ROUNDS, "job/propose", "g"), "job.propose", "a function as module:function"),
        (changed(ROUNDS, "job/sweep", []), "job.sweep", "is empty"),
        (changed(ROUNDS, "job/sweep", {"n": {"range": [1, 10, 1]}}), "limits.max_points", "first round has 10 points"),
        (changed(ROUNDS, "limits", {"max_rounds": 0}), "limits.max_rounds", "of 1 or more"),
        (changed(EXPERIMENT, "limits", {"max_points": 5}), "limits.max_points", "is for a job with `propose`"),
    ],
)
def test_faults_of_rounds(data, key, said):
    found = faults("experiment", data)
    assert list(found) == [f"ems:experiment.{key}"] and said in found[f"ems:experiment.{key}"]


def points(answer):
    sweep = proposed.extended(SWEEP, proposed.grids_of(answer))
    return [sweep.parameters(index) for index in range(2, len(sweep))]


@pytest.mark.parametrize(
    "given",
    [
        [{"n": 3, "x": 1.5}],
        [{"n": 3, "x": 1.5}, {"n": 3, "x": 2.5}, {"n": 3, "x": 1.5}],
        [{"n": 5}, {"n": 5}, {"n": 4}],
        [{"n": 5}, {"x": 1.0, "more": True}, {"x": 2.0, "more": False}, {"n": 6}],
        [{"t": "é"}] * 3,
    ],
)
def test_points_stay_as_they_are_and_in_order(given):
    assert points({"points": given}) == given


def test_whole_numbers_become_doubles_where_doubles_were():
    assert repr(points({"points": [{"x": 1}]})) == "[{'x': 1.0}]"
    assert repr(points({"grids": [{"x": [1, 2]}]})) == "[{'x': 1.0}, {'x': 2.0}]"


def test_grids_are_those_of_a_stack_file():
    grids = [{"n": [1, 2]}, {"n": [2, 3]}]
    assert points({"grids": grids}) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert proposed.grids_of({"grids": [{"n": {"count": 2}}]}) == ({"n": {"count": 2, "bits": 31}},)
    assert proposed.grids_of({}) == ()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"points": [{"n": 1}, {"n": 2.5}]}, "n has numbers with a point, but whole ones in the rounds before"),
        (
            {"grids": [{"n": [2.5]}]},
            r"allowed are whole ones, .* with a point, as n: \[1.0\]",
        ),
        ({"points": [{"x": "b"}]}, "x is text, but numbers in the rounds before"),
        ({"points": [{"t": 1}]}, "t is numbers, but text in the rounds before"),
        ({"points": [{"m": 1}, {"M": 2}]}, "m is there beside M"),
        ({"points": [{"N": 2}]}, "n is there beside N"),
        (
            {"points": [{"m": 2**53 + 1}, {"m": 0.5}]},
            "no double keeps, among numbers with a point: allowed are",
        ),
        ({"points": [{"if": 1}]}, "a word of Python"),
        ({"points": [{"n": []}]}, r"points\[0\].n is a list of 0"),
        ({"points": [{"n": None}] * 9}, "and 4 more"),
        ({"grids": [{"n": [1, 1]}]}, "allowed is each value once"),
        ({"grids": [{"n": {"range": [1, 10**7, 1]}, "m": {"range": [1, 10, 1]}}]}, "would be 100,000,002 points"),
    ],
)
def test_what_cannot_be_computed_is_told(answer, said):
    with pytest.raises(proposed.Unusable, match=said):
        points(answer)
