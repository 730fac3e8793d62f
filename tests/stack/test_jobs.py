"""`job:` of an experiment: commands with parameters, functions over sweeps."""

from __future__ import annotations

import math

import pytest

from ems.stack import spec
from ems.stack.models import CommandJob, SweepJob
from ems.stack.schema import json_schema
from tests.stack.specs import EXPERIMENT, changed, experiment, faults, problem

SWEEP = {"function": "svd.model:leading", "sweep": {"n": [100, 200], "seed": {"count": 50}}}


def test_a_command_is_a_list_or_a_line():
    assert experiment("job/command", "Rscript 'my file.R' -x").job.command == ("Rscript", "my file.R", "-x")
    assert experiment("job/command", ["bash", "-c", "a | b"]).job.command == ("bash", "-c", "a | b")


@pytest.mark.parametrize(
    "command, said",
    [
        *[("a | b", "no shell reads `|`"), ("a 'b", "No closing quotation"), ("", "names no program")],
        *[("a > b", "no shell reads `>`"), ([], "a list of 0"), ([""], "the name of a program"), ("''", "no program")],
        *[(3, "is 3: allowed is a list of words"), ({}, "allowed is a list of words"), (["a", ["b"]], "a list of 1")],
    ],
)
def test_commands_refused(command, said):
    assert said in problem("job/command", command)


@pytest.mark.parametrize(
    "value, kept",
    [
        *[(2, 2), (2.0, 2.0), (-0.0, -0.0), (1e20, 1e20), (1e21, 1e21), (10**21, 10**21), (0.1, 0.1)],
        *[(2**64, 2**64), (True, True), (None, None), ("1e-3", "1e-3"), (2**63 - 1, 2**63 - 1)],
        ([1.0, 2, "a"], [1.0, 2, "a"]),
    ],
)
def test_parameters_are_of_the_type_in_which_they_are_written(value, kept):
    found = experiment("job/parameters/a", value).job.parameters["a"]
    assert repr(found) == repr(kept)


@pytest.mark.parametrize(
    "value, said",
    [
        *[(math.nan, "is nan"), (math.inf, "is inf"), (10**400, "more than 100 digits"), ({"a": 1}, "a mapping of 1")],
        *[([1, [2]], "item 1 is a list of 1"), ([math.nan], "item 0 is nan"), (2**64 + 1, "more digits")],
    ],
)
def test_parameters_refused(value, said):
    assert said in problem("job/parameters/a", value)


def test_parameter_names_are_names():
    assert "allowed is a name" in problem("job/parameters", {"a b": 1}, 'job.parameters."a b"')


def test_a_job_is_a_command_or_a_function_over_a_sweep():
    found = experiment("job", SWEEP).job
    assert isinstance(found, SweepJob)
    assert (found.function, found.sweep) == (SWEEP["function"], (SWEEP["sweep"],))
    assert (found.threads, found.retries, found.max_failures, found.point_timeout_s, found.memory_mb) == (
        *[1, 0, None, None, None],
    )
    assert isinstance(experiment("title", "x").job, CommandJob)


@pytest.mark.parametrize(
    "job, said",
    [
        (SWEEP | {"command": "x"}, "has both command and function: allowed is a mapping with exactly one of `command`"),
        ({}, "has neither command nor function: allowed is"),
        ({"sweep": {"n": [1]}}, "has neither command nor function"),
        (None, "is empty (null): allowed is a mapping with exactly one of `command`"),
        ("python fit.py", 'is "python fit.py": allowed is a mapping with exactly one'),
    ],
)
def test_a_job_is_one_of_the_two(job, said):
    assert said in problem("job", job)


@pytest.mark.parametrize(
    "key, value, below, said",
    [
        ("function", "svd.model", "", 'is "svd.model": allowed is a function as module:function, as package.module:na'),
        ("function", "a/b.py:f", "", "allowed is a function as module:function"),
        ("retries", -1, "", "is -1: allowed is a whole number of 0 or more, up to 100"),
        ("max_failures", 1.5, "", "allowed is a whole number"),
        ("point_timeout_s", 0, "", "allowed is a number above 0"),
        ("memory_mb", 1, "", "allowed is a whole number of 128 or more"),
        ("threads", 0, "", "allowed is a whole number of 1 or more"),
        ("retry", 1, "", "did you mean retries?"),
        ("parameters", {}, "", "is for a command: allowed is to leave it out"),
        ("sweep", 3, "", "is 3: allowed is a grid"),
        ("sweep", {"n": 3}, ".n", "is 3: allowed is a list of values"),
        ("sweep", [{"n": [1]}, {"n": {"range": [1, 2, -1]}}], "[1].n.range[2]", "turn its sign"),
        ("sweep", {"n": {"secure": "x"}}, ".n", "`secure:`"),
    ],
)
def test_sweeps_refused(key, value, below, said):
    found = faults("experiment", changed(EXPERIMENT, "job", SWEEP | {key: value}))
    assert list(found) == [f"ems:experiment.job.{key}{below}"]
    assert said in found[f"ems:experiment.job.{key}{below}"]


def test_a_sweep_has_all_its_faults_at_once_beside_others():
    data = changed(EXPERIMENT, "job", {"function": 3, "sweep": {"a": [], "b": [None], "point": [1]}, "retries": -1})
    assert set(faults("experiment", data | {"title": 3})) == {
        f"ems:experiment.{key}"
        for key in ["title", *(f"job.{key}" for key in ["function", "sweep.a", "sweep.b[0]", "sweep.point", "retries"])]
    }
    assert problem("job", {"function": "a:b"}, "job.sweep").startswith("is missing: allowed is a grid")


def test_json_brings_the_same_sweep_back_and_knows_no_order_of_names():
    grid = {"z": [1, 2.5], "zip": {"b": ["x"], "a": [True]}, "n": {"range": [0, 1, 0.1]}, "seed": {"count": 9}}
    found = experiment("job", SWEEP | {"sweep": [grid, {"z": [3]}]})
    text = spec.to_json(found)
    assert spec.from_json("experiment", text) == found
    turned = experiment("job", SWEEP | {"sweep": [dict(reversed(grid.items())), {"z": [3]}]})
    assert spec.to_json(turned) == text


def test_the_schema_tells_the_forms_of_an_axis():
    job = json_schema()["$defs"]["SweepJob"]["properties"]
    grid, several = job["sweep"]["oneOf"]
    assert several["items"] == grid
    forms = next(iter(grid["patternProperties"].values()))["oneOf"]
    assert [list(form.get("properties", [form["type"]])) for form in forms] == [
        *[["array"], ["range"], ["linspace"], ["count", "root", "first"]]
    ]
    assert "varies fastest" in job["sweep"]["description"]


@pytest.mark.parametrize(
    "sweep, key",
    [
        ({"context": [1]}, "sweep.context"),
        ([{"n": [1]}, {"n": [2], "context": [1]}], "sweep[1].context"),
        ({"zip": {"n": [1, 2], "context": [1, 2]}}, "sweep.zip.context"),
        ([{"zip": [{"n": [1, 2], "context": [1, 2]}]}], "sweep[0].zip[0].context"),
    ],
)
def test_what_a_set_up_returns_is_no_axis(sweep, key):
    given = {"function": "a:f", "sweep": sweep}
    if "[1]" not in key:  # whose grids differ in their names
        assert experiment("job", given).job.setup is None
    found = faults("experiment", changed(EXPERIMENT, "job", {**given, "setup": "a:load"}))
    assert "by which the function is given what `setup` returns" in found[f"ems:experiment.job.{key}"]


def test_a_set_up_is_a_function_that_has_its_time():
    job = {**SWEEP, "setup": "svd.data:load", "setup_timeout_s": 60}
    found = experiment("job", job).job
    assert (found.setup, found.setup_timeout_s) == ("svd.data:load", 60.0)
    assert "module:function" in problem("job", {**SWEEP, "setup": "load"}, "job.setup")
    assert "above 0" in problem("job", {**job, "setup_timeout_s": 0}, "job.setup_timeout_s")
    assert "is for `setup`" in problem("job", {**SWEEP, "setup_timeout_s": 60}, "job.setup_timeout_s")


GRID_NEEDED = "is for a command over a grid: add `sweep: {name: [1, 2]}`"


@pytest.mark.parametrize(
    ("job", "key", "said"),
    [
        ({"command": "cat", "protocol": "lines"}, "protocol", GRID_NEEDED),
        ({"command": "cat", "propose": "a:b"}, "propose", GRID_NEEDED),
        ({"command": "cat", "setup": "a:b"}, "setup", "is for a function over a grid: allowed is to leave it out"),
        ({"command": "cat", "sweep": {"n": [1]}, "setup": "a:b"}, "setup", "is for a function over a grid"),
        ({"command": "cat", "prameters": {}}, "prameters", "is not a key here: did you mean parameters?"),
        ({"command": "cat", "sweeps": {}}, "sweeps", "is not a key here: did you mean sweep?"),
    ],
)
def test_keys_of_another_kind_of_job_are_told_with_what_they_need(job, key, said):
    found = faults("experiment", changed(EXPERIMENT, "job", job))
    assert list(found) == [f"ems:experiment.job.{key}"] and said in found[f"ems:experiment.job.{key}"]
