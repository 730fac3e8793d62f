"""Keys of a stack file that are a kind of place's own."""

from __future__ import annotations

import json

import pytest

from ems import clusters
from ems.base.errors import StackFileError
from ems.stack import spec
from ems.stack.schema import json_schema
from ems.stack.strict import Strict
from tests.stack.specs import EXPERIMENT

PLACES = clusters.settings()


def parsed(cluster):
    return spec.parse("experiment", {**EXPERIMENT, "cluster": cluster}, PLACES)


def problem(step):
    with pytest.raises(StackFileError) as caught:
        step()
    (fault,) = caught.value.faults
    return fault.key, fault.problem


def test_each_kind_has_a_strict_model_of_its_settings_whose_keys_say_what_they_mean():
    for kind, model in PLACES.items():
        assert issubclass(model, Strict), kind
        assert all(field.description for field in model.model_fields.values())


def test_an_experiments_settings_are_checked_by_their_kind():
    assert json.loads(spec.to_json(parsed({"kind": "laptop", "workers": 3})))["cluster"]["workers"] == 3
    assert problem(lambda: parsed({"kind": "laptop", "workers": 0})) == (
        "ems:experiment.cluster.workers",
        "is 0: allowed is a whole number of 1 or more, up to 10,000",
    )
    key, said = problem(lambda: parsed({"kind": "laptop", "worker": 1}))
    assert key == "ems:experiment.cluster.worker" and "did you mean workers?" in said


def test_what_is_left_out_stands_in_the_recorded_spec_with_its_default():
    for cluster in ({"kind": "laptop"}, {"kind": "laptop", "workers": None}):
        assert json.loads(spec.to_json(parsed(cluster)))["cluster"] == {
            "kind": "laptop",
            "stack": None,
            "workers": None,
        }
    assert spec.from_json("experiment", spec.to_json(parsed({"kind": "laptop"})), PLACES) == parsed({"kind": "laptop"})


def test_a_persistent_place_has_the_settings_of_its_kind():
    assert spec.parse("cluster", {"kind": "laptop", "title": "A box", "workers": 2}, PLACES)
    key, said = problem(lambda: spec.parse("cluster", {"kind": "laptop", "partition": "normal"}, PLACES))
    assert key == "ems:cluster.partition" and "allowed are kind, reach, title, workers" in said


def test_an_experiment_at_a_persistent_place_is_checked_once_its_kind_is_known():
    described = parsed({"stack": "box", "workers": 2})
    assert json.loads(spec.to_json(spec.at(described, "laptop", PLACES)))["cluster"]["workers"] == 2
    wrong = parsed({"stack": "box", "workers": "many"})
    key, said = problem(lambda: spec.at(wrong, "laptop", PLACES))
    assert key == "ems:experiment.cluster.workers" and said.startswith('is "many": ')


def test_faults_of_settings_are_told_with_all_others():
    with pytest.raises(StackFileError) as caught:
        spec.parse("experiment", {**EXPERIMENT, "cluster": {"kind": "laptop", "workers": -1}, "attempt": 0}, PLACES)
    assert {fault.key for fault in caught.value.faults} == {"ems:experiment.cluster.workers", "ems:experiment.attempt"}


def test_the_schema_for_editors_has_the_settings_of_all_kinds():
    definitions = json_schema(PLACES)["$defs"]
    for name in ("PlaceSpec", "ClusterSpec"):
        assert "workers" in definitions[name]["properties"] and definitions[name]["additionalProperties"] is False
