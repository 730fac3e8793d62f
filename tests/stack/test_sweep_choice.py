"""`order:` and `exclude:` of a sweep."""

from __future__ import annotations

import pytest

from ems.base.errors import StackFileError
from ems.stack import spec, sweep_choice
from tests.stack.specs import EXPERIMENT, changed, experiment, faults

SWEEP = {"function": "a:b", "sweep": {"n": [100, 200], "m": [1, 2.5], "s": ["a", "b"], "t": [True, False]}}


def test_what_says_nothing_new_is_not_recorded():
    """Specs that were registered before have neither key."""
    plain = experiment("job", SWEEP)
    said = experiment("job", SWEEP | {"order": "grid"})
    assert spec.to_json(plain) == spec.to_json(said)
    assert not {"order", "exclude"} & plain.model_dump(mode="json")["job"].keys()
    text = spec.to_json(experiment("job", SWEEP | {"order": "random", "exclude": "n > 100"}))
    assert '"exclude":["n > 100"],' in text and '"order":"random"' in text
    assert spec.to_json(spec.from_json("experiment", text)) == text


def test_one_stands_for_a_list_and_numbers_are_as_pulumi_hands_them_over():
    assert experiment("job", SWEEP | {"exclude": {"n": 100.0}}).job.exclude == ({"n": 100},)
    assert experiment("job", SWEEP | {"exclude": ["n > 1.0", {"s": "a"}]}).job.exclude == ("n > 1.0", {"s": "a"})


@pytest.mark.parametrize(
    "exclude, key, said",
    [
        ("m > q", "", "has q, which is not a parameter of the sweep: allowed are m, n, s, t"),
        (["n > 100", "n > s"], "[1]", "compares a number with text"),
        ({"q": 1}, ".q", "is not a parameter of the sweep: allowed are m, n, s, t"),
        ([{"n": "a"}], "[0].n", 'is "a", text: allowed is a number'),
        ([{"n": True}], "[0].n", "is true, true or false: allowed is a number"),
        ([{"s": 3}], "[0].s", "is 3, a number: allowed is text"),
        ([{"n": [1, 2]}], "[0].n", "is a list of 2: allowed is one value"),
        ([{"n": None}], "[0].n", "allowed is one value"),
        ([], "", "is empty: allowed is points"),
        ({}, "", "is a mapping of 0: allowed are points"),
        (3, "", "is 3: allowed are points"),
        (["n > 100", ""], "[1]", 'is "": allowed are points'),
    ],
)
def test_exclusions_refused(exclude, key, said):
    found = faults("experiment", changed(EXPERIMENT, "job", SWEEP | {"exclude": exclude}))
    assert list(found) == [f"ems:experiment.job.exclude{key}"]
    assert said in found[f"ems:experiment.job.exclude{key}"]


def test_an_order_refused():
    found = faults("experiment", changed(EXPERIMENT, "job", SWEEP | {"order": "randm"}))
    assert found == {"ems:experiment.job.order": 'is "randm": did you mean random? allowed are grid, random'}
    assert "is 3: allowed are grid, random" in str(
        faults("experiment", changed(EXPERIMENT, "job", SWEEP | {"order": 3}))
    )


def test_a_faulty_sweep_is_told_alone():
    job = SWEEP | {"sweep": {"n": []}, "exclude": "n > 1"}
    assert list(faults("experiment", changed(EXPERIMENT, "job", job))) == ["ems:experiment.job.sweep.n"]


def job(*exclude: object) -> dict[str, object]:
    found: dict[str, object] = experiment("job", SWEEP | {"exclude": list(exclude)}).job.model_dump(mode="json")
    return found


def test_something_has_to_be_left():
    assert sweep_choice.kept(job("n > 100")) == 8
    for exclude, keys in [(["t", "not t"], [""]), (["n > 100", "n > 1", "m < 9"], ["[1]", "[2]"])]:
        with pytest.raises(StackFileError) as caught:
            sweep_choice.kept(job(*exclude))
        assert [fault.key for fault in caught.value.faults] == [f"ems:experiment.job.exclude{key}" for key in keys]
        assert "leaves out all 16 points" in caught.value.faults[0].problem
    with pytest.raises(StackFileError, match=r"job.exclude: has a condition that has no value for some point"):
        sweep_choice.kept(job("n / (m - 1) > 3"))


def test_what_leaves_out_nothing_is_hinted_at():
    hints = list(sweep_choice.idle(job("n > 100", "n > 200", {"n": 100, "m": 7})))
    assert [(hint.key, hint.problem) for hint in hints] == [
        ("ems:experiment.job.exclude[1]", 'is "n > 200", which no point of the sweep has'),
        ("ems:experiment.job.exclude[2]", "is n: 100, m: 7, which no point of the sweep has"),
    ]
