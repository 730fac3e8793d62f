from __future__ import annotations

from ems.base.errors import Fault
from ems.stack import keys


def test_keys_are_dotted_and_odd_ones_quoted():
    assert keys.dotted(("ems:experiment", "code", "paths", 0)) == "ems:experiment.code.paths[0]"
    assert keys.dotted(("ems:lab", "projects", "a.b", "title")) == 'ems:lab.projects."a.b".title'
    assert keys.dotted(("ems:lab", "a\nb")) == 'ems:lab."a\\nb"'


def test_secrets_are_found_at_any_depth():
    data = {"a": [{"b": {"secure": "x"}}], "c": {"secure": "x", "d": 1}, "e": {"f": {"secure": {}}}}
    assert sorted(keys.secrets(data)) == [("a", 0, "b"), ("e", "f")]
    deep: object = {"secure": "x"}
    for _ in range(5_000):
        deep = [deep]
    assert len(next(keys.secrets(deep))) == 5_000


def test_below_means_the_key_itself_or_inside_it():
    faults = [Fault("ems:lab.a", "")]
    assert [
        keys.below(key, faults) for key in ("ems:lab.a", "ems:lab.a.b", "ems:lab.a[0]", "ems:lab.ab", "ems:lab")
    ] == [*[True, True, True, False, False]]


def test_across_speaks_even_where_other_keys_are_broken():
    data = {"cluster": {"kind": 3, "stack": []}, "code": {"repo": 1, "paths": ["a", 2, "a/"]}}
    found = [fault.key for fault in keys.across("experiment", data, ["laptop"])]
    assert found == ["ems:experiment.cluster", "ems:experiment.code.commit", "ems:experiment.code.paths[2]"]
    assert list(keys.across("lab", {"projects": [1]}, [])) == []
