"""Specs for tests, and what is wrong with changed ones."""

from __future__ import annotations

import copy

import pytest

from ems.base.errors import StackFileError
from ems.stack import spec
from ems.stack.models import ExperimentSpec

HASH = "0123456789abcdef0123456789abcdef01234567"
EXPERIMENT = {
    "project": "digits",
    "experimenter": "researcher",
    "funding": "grant",
    "environment": "digits",
    "job": {"command": ["python", "fit.py"], "parameters": {"sizes": [10, 20], "rate": 0.001, "name": "ü"}},
    "results": {"table": "digits"},
}
LAB = {
    "experimenters": {"researcher": {"name": "A Researcher"}},
    "projects": {"root": {"title": "Root"}, "digits": {"title": "Digits", "parent": "root"}},
    "funding": {"grant": {"agency": "Agency", "budget_usd": 10, "expires": "2027-12-31"}},
}


def changed(data, path, value):
    data = copy.deepcopy(data)
    *above, last = path.split("/")
    place = data
    for part in above:
        place = place.setdefault(part, {})
    place[last] = value
    return data


def faults(kind, data):
    with pytest.raises(StackFileError) as caught:
        spec.parse(kind, data)
    return {fault.key: fault.problem for fault in caught.value.faults}


def experiment(path, value) -> ExperimentSpec:
    found = spec.parse("experiment", changed(EXPERIMENT, path, value))
    assert isinstance(found, ExperimentSpec)
    return found


def problem(path, value, key=""):
    """The one problem of an experiment with `value` at `path`."""
    found = faults("experiment", changed(EXPERIMENT, path, value))
    assert list(found) == [f"ems:experiment.{key or path.replace('/', '.')}"]
    return next(iter(found.values()))
