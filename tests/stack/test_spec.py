from __future__ import annotations

import json
import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.base import plugins
from ems.base.errors import StackFileError
from ems.base.messages import UnquotedDate
from ems.stack import spec
from ems.stack.models import KINDS, ExperimentSpec, FundingSpec, LabSpec
from ems.stack.schema import json_schema
from tests.stack.specs import EXPERIMENT, LAB, changed, experiment, faults, problem


def test_a_small_experiment_gets_its_defaults():
    found = spec.parse("experiment", EXPERIMENT)
    assert isinstance(found, ExperimentSpec)
    assert found.code.commit == "HEAD"
    assert found.code.paths == ()
    assert found.cluster.kind == "laptop"
    assert found.limits.max_hours is None
    assert found.job.command == ("python", "fit.py")
    assert found.job.parameters == {"sizes": [10, 20], "rate": 0.001, "name": "ü"}
    assert (found.attempt, found.job.threads, found.env) == (1, 1, {})


def test_a_lab_has_typed_rows():
    lab = spec.parse("lab", LAB)
    assert isinstance(lab, LabSpec)
    assert lab.funding["grant"].expires == date(2027, 12, 31)
    assert lab.funding["grant"].budget_usd == 10.0
    assert lab.projects["digits"].parent == "root"
    assert FundingSpec(agency="Agency", expires=date(2027, 1, 1)).expires == date(2027, 1, 1)


def test_all_faults_come_at_once():
    data = changed(changed(EXPERIMENT, "limits/max_hours", -1), "job/threads", 0)
    data = changed(changed(data, "code/repo", "https://host/x"), "cluster", {})
    data["results"] = {"tabel": "x"}
    del data["funding"]
    assert set(faults("experiment", data)) == {
        f"ems:experiment.{key}"
        for key in [
            *["limits.max_hours", "job.threads", "code.commit", "cluster", "results.tabel", "funding"],
        ]
    }


@pytest.mark.parametrize("data", [None, "text", 3, True, [], [1]])
@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_is_a_mapping(kind, data):
    assert "allowed is a mapping with the keys" in faults(kind, data)[f"ems:{kind}"]


def test_missing_key_says_what_it_is():
    data = {key: value for key, value in EXPERIMENT.items() if key != "funding"}
    assert faults("experiment", data)["ems:experiment.funding"].startswith("is missing: Who pays")


def test_unknown_keys_name_the_nearest_or_all():
    assert "did you mean max_hours?" in problem("limits/max_hour", 1)
    assert "allowed are limit_usd, max_hours" in problem("limits/zzz", 1)
    found = faults("lab", changed(LAB, "experimenters/researcher/emial", "x"))
    assert "did you mean email?" in found["ems:lab.experimenters.researcher.emial"]


@pytest.mark.parametrize(
    "path, value, said",
    [
        ("limits/max_hours", -1, "is -1: allowed is a number above 0, up to 8,760"),
        ("limits/max_hours", 0, "is 0: allowed is a number above 0"),
        ("limits/max_hours", 8761, "is 8761: allowed"),
        ("limits/limit_usd", -0.5, "is -0.5: allowed is a number above 0"),
        ("limits/limit_usd", "1e-3", 'is the text "1e-3": allowed is a number above 0; write it without quotes'),
        ("limits/max_hours", "one", 'is "one": allowed is a number above 0'),
        ("limits/max_hours", True, "is true: allowed is a number"),
        ("limits/max_hours", math.nan, "is nan: allowed is a number"),
        ("limits/max_hours", math.inf, "is inf: allowed is a number"),
        ("limits/max_hours", 10**400, "is a whole number of more than 100 digits: allowed is a number"),
        ("limits/max_hours", [1], "is a list of 1: allowed is a number"),
        ("attempt", 0, "is 0: allowed is a whole number of 1 or more"),
        ("attempt", 1.5, "is 1.5: allowed is a whole number"),
        ("attempt", None, "is empty (null): allowed is a whole number"),
        ("job/threads", True, "is true: allowed is a whole number"),
        ("job/threads", 2000, "is 2000: allowed is a whole number of 1 or more, up to 1,024"),
    ],
)
def test_numbers(path, value, said):
    assert said in problem(path, value)


def test_whole_floats_of_json_are_whole_numbers():
    found = experiment("attempt", 2.0)
    assert found.attempt == 2
    assert isinstance(found.attempt, int)


@pytest.mark.parametrize(
    "name", ["a/b", 'a"b', "a'b", "a\nb", "digits\n", "..", "a..b", "", "1a", "é", "a" * 64, "a b"]
)
@pytest.mark.parametrize("key", ["project", "experimenter", "funding", "environment"])
def test_bad_names_are_refused(key, name):
    assert "allowed is a name" in problem(key, name)


def test_bad_names_of_rows_are_refused():
    found = faults("lab", changed(LAB, "projects", {"a/b": {"title": "x"}, "c\nd": {"title": "x"}}))
    assert set(found) == {'ems:lab.projects."a/b"', 'ems:lab.projects."c\\nd"'}


def test_numbers_and_truths_as_text_are_to_be_quoted():
    assert problem("project", 2024).endswith('quote it: "2024"')
    assert problem("title", 1.5).endswith('quote it: "1.5"')
    assert problem("title", True).endswith('quote it: "true"')
    assert problem("env", {"SEED": 3}, "env.SEED").endswith('quote it: "3"')
    assert problem("job/command", ["python", True], "job.command").endswith('quote it: "true"')


@pytest.mark.parametrize("text", ["a\x00b", "a\x1b[31m", "a\nb", "a\x7f", "\ud800", "a\u2028b"])
@pytest.mark.parametrize("path", ["title", "env/NAME", "job/parameters/a"])
def test_control_characters_are_refused(path, text):
    if text == "a\nb" and path != "title":
        assert experiment(path, text)
        return
    said = problem(path, text)
    assert "control character" in said
    assert said.isprintable()


def test_a_description_may_have_lines():
    assert experiment("description", "one\n\ttwo").description == "one\n\ttwo"
    assert "control character" in problem("description", "a\rb")


@pytest.mark.parametrize("name", ["1A", "A-B", "A\n", "", "É"])
def test_environment_names_refused(name):
    found = faults("experiment", changed(EXPERIMENT, "env", {name: "x"}))
    assert "allowed is a name of letters" in next(iter(found.values()))


def test_names_of_ems_are_refused_in_env():
    assert "belong to EMS" in problem("env", {"EMS_X": "1"}, "env.EMS_X")
    assert experiment("env", {"XEMS_": "", "_a": "b"}).env == {"XEMS_": "", "_a": "b"}


@pytest.mark.parametrize("table", ["Digits", "a-b", "a;drop", "1a", "", "a" * 50, "experiment", "point", "sqlite_x"])
def test_tables_refused(table):
    assert "allowed is" in problem("results/table", table)


def test_a_cluster_is_a_kind_or_a_stack():
    assert experiment("cluster", {"stack": "sherlock", "kind": None}).cluster.stack == "sherlock"
    assert "exactly one" in problem("cluster", {})
    assert "exactly one" in problem("cluster", {"workers": 2})
    both = faults("experiment", changed(EXPERIMENT, "cluster", {"kind": "moon", "stack": "x"}))
    assert 'has kind ("moon") and stack ("x")' in both["ems:experiment.cluster"]


def test_kinds_of_clusters_are_the_modules_there():
    for kind in plugins.names("clusters"):
        assert experiment("cluster", {"kind": kind}).cluster.kind == kind
    assert 'is "moon": ' in problem("cluster/kind", "moon")
    assert 'is "moon": ' in faults("cluster", {"kind": "moon"})["ems:cluster.kind"]


@pytest.mark.parametrize("key", ["project", "title", "description", "environment", "job/parameters/a"])
@pytest.mark.parametrize("value", [UnquotedDate("2020-01-01"), "2020-01-01 00:00:00 +0000 UTC"])
def test_dates_without_quotes_are_to_be_quoted(key, value):
    assert problem(key, value).endswith('quote it: "2020-01-01"')


@pytest.mark.parametrize(
    "value, said",
    [
        (UnquotedDate("2027-12-31"), 'quote it: "2027-12-31"'),
        ("2027-12-31 00:00:00 +0000 UTC", 'quote it: "2027-12-31"'),
        ("2027-12-31T00:00:00Z", 'quote it: "2027-12-31"'),
        ("2027-02-30", "which no calendar has"),
        ("31.12.2027", "allowed is a day in quotes"),
        ("20271231", "allowed is a day in quotes"),
        (20271231, "is the number 20271231"),
    ],
)
def test_days(value, said):
    found = faults("lab", changed(LAB, "funding/grant/expires", value))
    assert said in found["ems:lab.funding.grant.expires"]


def test_money_is_not_negative():
    assert "is -1: " in faults("lab", changed(LAB, "funding/grant/budget_usd", -1))["ems:lab.funding.grant.budget_usd"]


def test_a_title_must_say_something():
    found = faults("lab", changed(LAB, "projects/root/title", " "))
    assert "text that says something" in found["ems:lab.projects.root.title"]


def test_an_unknown_parent_names_the_nearest():
    found = faults("lab", changed(LAB, "projects/digits/parent", "rot"))
    assert "did you mean root? allowed are digits, root" in found["ems:lab.projects.digits.parent"]


def test_circles_of_projects_are_refused_once_each():
    parents = {"a": "b", "b": "c", "c": "b", "d": "d", "e": "a"}
    projects = {name: {"title": name, "parent": parent} for name, parent in parents.items()}
    found = faults("lab", changed(LAB, "projects", projects))
    assert set(found) == {"ems:lab.projects.b.parent", "ems:lab.projects.d.parent"}
    assert "b → c → b" in found["ems:lab.projects.b.parent"]


@pytest.mark.parametrize("path", ["title", "project", "env/TOKEN", "job/parameters/key", "code", "job"])
def test_a_secret_has_one_fault_of_its_own(path):
    said = problem(path, {"secure": "v1:abc"})
    assert "`secure:`" in said
    assert "v1:abc" not in said


def test_a_secret_is_found_in_lists_and_at_the_top():
    assert "`secure:`" in problem("code/paths", [{"secure": "x"}], "code.paths[0]")
    assert set(faults("experiment", {"secure": "x"})) == {"ems:experiment"}


def test_faults_beyond_a_hundred_are_summed_up():
    with pytest.raises(StackFileError) as caught:
        spec.parse("experiment", EXPERIMENT | {f"key{number}": 1 for number in range(100_000)})
    assert len(caught.value.faults) == 101
    assert "first 100" in caught.value.faults[-1].problem


def test_canonical_json_is_independent_of_the_order_of_keys():
    backwards = json.loads(json.dumps(dict(reversed(EXPERIMENT.items()))))
    text = spec.to_json(spec.parse("experiment", EXPERIMENT))
    assert text == spec.to_json(spec.parse("experiment", backwards))
    assert text.startswith('{"attempt":1,"cluster":{"kind":"laptop","stack":null')
    assert '"rate":0.001' in text
    assert spec.to_json(spec.parse("lab", LAB)).count('"expires":"2027-12-31"') == 1


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', "[" * 100_000])
def test_json_that_is_no_spec_is_a_fault(text):
    with pytest.raises(StackFileError, match="ems:experiment"):
        spec.from_json("experiment", text)


LINE = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
SCALARS = st.none() | st.booleans() | NUMBERS | LINE
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True)


@given(
    parameters=st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=4), max_size=4),
    max_hours=st.none() | st.floats(0, 8760, exclude_min=True),
    command=st.lists(LINE, max_size=3),
    title=LINE,
)
def test_json_brings_the_same_spec_back(parameters, max_hours, command, title):
    job = {"command": ["python", *command], "parameters": parameters}
    found = spec.parse("experiment", EXPERIMENT | {"job": job, "limits": {"max_hours": max_hours}, "title": title})
    text = spec.to_json(found)
    assert spec.from_json("experiment", text) == found
    assert spec.to_json(spec.from_json("experiment", text)) == text


KEYS = st.sampled_from(
    [*ExperimentSpec.model_fields, *LabSpec.model_fields, "kind", "parent", "secure", "paths", "repo"]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=6),
    max_leaves=20,
)


@given(kind=st.sampled_from(KINDS), key=KEYS, data=ANY)
def test_any_data_is_a_spec_or_has_faults(kind, key, data):
    start = {"lab": LAB, "cluster": {"kind": "laptop"}, "experiment": EXPERIMENT}[kind]
    for candidate in (data, {**start, key: data}):
        try:
            found = spec.parse(kind, candidate)
        except StackFileError as error:
            assert all(fault.problem for fault in error.faults)
            str(error).encode("utf-8")
        else:
            assert isinstance(found, spec.MODELS[kind])


def test_the_schema_describes_every_key():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    config = schema["properties"]["config"]
    assert [rule["required"] for rule in config["oneOf"]] == [["ems:lab"], ["ems:cluster"], ["ems:experiment"]]
    for definition in schema["$defs"].values():
        assert definition["additionalProperties"] is False
        assert definition["description"]
        assert all(key["description"] for key in definition["properties"].values())
    assert set(schema["$defs"]["ExperimentSpec"]["required"]) == set(EXPERIMENT)


def test_the_schema_is_json_whose_references_lead_somewhere():
    text = json.dumps(json_schema())
    names = {part.partition('"')[0] for part in text.split("#/$defs/")[1:]}
    assert names
    assert names <= set(json_schema()["$defs"])
    limits = json_schema()["$defs"]["LimitsSpec"]["properties"]["max_hours"]["anyOf"][0]
    assert limits == {"type": "number", "exclusiveMinimum": 0, "maximum": 8760}


def test_types_of_columns_are_declared_for_a_command():
    declared = {"zip": "text", "my label": "integer", "x": "float", "ok": "boolean"}
    found = experiment("results/columns", declared)
    assert found.results.columns == declared
    assert spec.from_json("experiment", spec.to_json(found)) == found
    assert problem("results/columns", {"zip": "txt"}, "results.columns.zip").endswith(
        "did you mean text? allowed are boolean, float, integer, text"
    )
    assert "no column" in problem("results/columns", {"Point": "text"}, "results.columns.Point")


def test_a_function_declares_no_columns():
    sweep = changed(EXPERIMENT, "job", {"function": "a.b:f", "sweep": {"x": [1]}})
    found = faults("experiment", changed(sweep, "results/columns", {"y": "text"}))
    assert "a function's values have types" in found["ems:experiment.results.columns"]


def test_no_files_are_left_out_not_an_empty_list():
    said = problem("results/files", [], "results.files")
    assert said == "is an empty list: allowed is to name files, as [final_results.txt], or to leave it out"
