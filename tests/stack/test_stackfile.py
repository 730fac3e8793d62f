from __future__ import annotations

import json
import os
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ems.base.errors import Fault, StackFileError
from ems.stack import spec, stackfile, yamlfile

EXPERIMENT = """\
# A learning curve.
config:
  aws:region: us-west-2
  gcp:project: another
  ems:experiment:
    project: digits
    experimenter: researcher
    funding: grant
    environment: digits
    code:
      paths: [src]
    job:
      command: [python, fit.py]
      parameters: {rate: 1e-3, sure: yes}
    results: {table: digits}
    limits:
      max_hours: 1
encryptionsalt: v1:abc:def
"""
LAB = {
    "experimenters": {"researcher": {"name": "A Researcher"}},
    "projects": {"digits": {"title": "Digits"}},
    "funding": {"grant": {"agency": "Agency"}},
}


@pytest.fixture
def write(tmp_path):
    def write(content, name="Pulumi.svd.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def faults(path):
    with pytest.raises(StackFileError) as caught:
        stackfile.load(path)
    assert all(fault.file == str(path) for fault in caught.value.faults)
    return [(fault.line, fault.key, fault.problem) for fault in caught.value.faults]


def fault(path):
    found = faults(path)
    assert len(found) == 1
    return found[0]


def test_a_file_gives_its_spec(write):
    found = stackfile.load(write(EXPERIMENT))
    assert isinstance(found, spec.ExperimentSpec)
    assert found.code.paths == ("src",)
    assert found.job.parameters == {"rate": 0.001, "sure": "yes"}
    assert found.limits.max_hours == 1.0


def test_read_tells_kind_data_and_lines(write):
    path = write(EXPERIMENT)
    found = stackfile.read(path)
    assert (found.path, found.kind) == (path, "experiment")
    assert found.data["results"] == {"table": "digits"}
    assert found.lines["ems:experiment"] == 5
    assert found.lines["ems:experiment.code.paths[0]"] == 11
    assert found.lines["ems:experiment.limits.max_hours"] == 17


def test_every_fault_has_its_line(write):
    text = (
        EXPERIMENT.replace("hours: 1", "hours: -1").replace("[src]", "[src, ../x]").replace("    funding: grant\n", "")
    )
    found = faults(write(text))
    assert [(line, key) for line, key, _ in found] == [
        (5, "ems:experiment.funding"),
        (10, "ems:experiment.code.paths[1]"),
        (16, "ems:experiment.limits.max_hours"),
    ]


def test_the_message_starts_with_the_file_as_given(write, tmp_path, monkeypatch):
    write(EXPERIMENT.replace("hours: 1", "hours: -1"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        StackFileError, match=r"^Pulumi\.svd\.yaml:17: ems:experiment\.limits\.max_hours: is -1: allowed"
    ):
        stackfile.load(stackfile.Path("Pulumi.svd.yaml"))


def test_faults_of_pulumis_json_get_their_lines(write):
    given = [Fault("ems:experiment.limits.max_hours", "is -1"), Fault('ems:experiment.env."A.B"', "bad")]
    path = write(EXPERIMENT)
    assert stackfile.locate(given, path) == [
        Fault('ems:experiment.env."A.B"', "bad", str(path), 5),
        Fault("ems:experiment.limits.max_hours", "is -1", str(path), 17),
    ]


def test_a_missing_file_names_the_stacks_there_are(write, tmp_path):
    write(EXPERIMENT)
    write(EXPERIMENT, "Pulumi.rnorm.yaml")
    _, _, said = fault(tmp_path / "Pulumi.rnrm.yaml")
    assert said.startswith("does not exist: did you mean rnorm? allowed are rnorm, svd")
    assert "`ems new STACK`" in said
    assert "there is none yet" in fault(tmp_path / "no" / "Pulumi.x.yaml")[2]


def test_a_folder_is_no_stack_file(tmp_path):
    assert "is a folder" in fault(tmp_path)[2]


def test_a_pipe_is_no_stack_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in fault(tmp_path / "pipe")[2]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n"])
def test_an_empty_file(write, text):
    assert fault(write(text))[2].startswith(
        "is empty: allowed is `config:` with ems:experiment, ems:lab or ems:cluster"
    )


@pytest.mark.parametrize(
    "text, said",
    [
        ("encryptionsalt: v1:abc\n", "has only what Pulumi writes, as after a stack file was renamed: delete it"),
        ("ems:experiment: {}\n", "ems:experiment stands at the top; put it below `config:`"),
        ("- a\n", "is a list of 1: allowed is a mapping"),
        ("text\n", 'is "text": allowed is a mapping'),
        ("encryptionsalt: x\nconfig:\n", "`config:` is empty (null): allowed is a mapping with"),
        ("config: [a]\n", "`config:` is a list of 1"),
    ],
)
def test_a_file_without_config(write, text, said):
    assert said in fault(write(text))[2]


def test_none_of_the_three_kinds(write):
    line, key, said = fault(write("config:\n  aws:region: x\n"))
    assert (line, key) == (1, "config")
    assert "has none of the three kinds: allowed is exactly one of ems:experiment, ems:lab or ems:cluster" in said


@pytest.mark.parametrize("key", ["ems:database", "ems:lab_id"])
def test_keys_that_belong_in_pulumi_yaml_are_not_passed_over(write, key):
    found = fault(write(EXPERIMENT.replace("  ems:experiment:", f"  {key}: x\n  ems:experiment:")))
    assert found[1] == key and "belongs in Pulumi.yaml" in found[2]


def test_two_kinds_at_once(write):
    line, key, said = fault(write(EXPERIMENT.replace("  ems:experiment:", "  ems:lab: {}\n  ems:experiment:")))
    assert (line, key) == (6, "ems:experiment")
    assert "it has ems:lab and ems:experiment" in said


def test_unknown_keys_outside_the_spec(write):
    found = faults(write("confg: 1\nconfig:\n  ems:experment: {}\n  other:key: {}\n"))
    assert [(line, key) for line, key, _ in found] == [(1, "confg"), (3, "ems:experment")]
    assert "did you mean config?" in found[0][2]
    assert "did you mean ems:experiment?" in found[1][2]


def test_keys_that_pulumi_knows_are_allowed(write):
    text = EXPERIMENT + "secretsprovider: x\nencryptedkey: y\nenvironment: [z]\n"
    assert stackfile.read(write(text)).kind == "experiment"


def test_secrets_have_no_place(write):
    text = EXPERIMENT.replace("    limits:", "    env:\n      TOKEN:\n        secure: v1:abc\n    limits:")
    line, key, said = fault(write(text))
    assert (line, key) == (17, "ems:experiment.env.TOKEN")
    assert "`secure:`" in said
    found = fault(write(EXPERIMENT.replace("gcp:project: another", "ems:database: {secure: v1:abc}")))
    assert found[:2] == (4, "ems:database")
    assert "`secure:`" in found[2]
    assert stackfile.read(write(EXPERIMENT.replace("us-west-2", "{secure: v1:abc}"))).kind == "experiment"


def test_other_encodings(write):
    line, _, said = fault(write(EXPERIMENT.replace("A learning", "L'été").encode("latin-1")))
    assert line == 1
    assert "is not UTF-8: byte 0xe9 at offset 4" in said
    assert "is not UTF-8" in fault(write(EXPERIMENT.encode("utf-16")))[2]
    assert fault(write(EXPERIMENT.encode() + b"a: \xff"))[0] == 19
    assert stackfile.read(write(b"\xef\xbb\xbf" + EXPERIMENT.encode())).kind == "experiment"


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yamlfile.LOADER])
@pytest.mark.parametrize(
    "text, line, said",
    [
        ("config:\n  a: [1\nb: 2\n", 3, "is not YAML: column "),
        ("config:\n  a: 'x\n", 3, "is not YAML: column "),
        ("config:\n\ta: 1\n", 2, "is not YAML: column 1: "),
        ("config:\n  é: 1\n  a: \x01\n", 3, "has the character U+0001"),
    ],
)
def test_broken_yaml(write, monkeypatch, loader, text, line, said):
    monkeypatch.setattr(yamlfile, "LOADER", loader)
    found = fault(write(text))
    assert found[0] == line
    assert said in found[2]


@pytest.mark.parametrize("place", ["config:\n  {}", "config:\n  other:key:\n    - {}"])
@pytest.mark.parametrize(
    "text, said",
    [
        ("{a: 1, a: 2}", "has the key a again, as in line"),
        ("{a: &x 1}", "has the anchor &x"),
        ("&x {a: 1}", "has the anchor &x"),
        ("{a: *x }", "has the alias *x"),
        ("{<<: *x }", 'has "<<" without quotes'),
        ("{a: !!str 1}", "has the tag tag:yaml.org,2002:str"),
        ("{a: !!python/object/apply:os.getcwd []}", "has the tag"),
        ("{a: !x 1}", "has the tag !x"),
        ("{1: a}", 'has the key 1, which is 1: quote it: "1"'),
        ("{true: a}", "has the key true, which is true"),
        ("{2020-01-01: a}", "is the date 2020-01-01 without quotes"),
        ("{~: a}", "has the key ~, which is empty (null)"),
        ("{[a]: b}", "a list or a mapping as a key"),
        ("{{a: b}: c}", "a list or a mapping as a key"),
    ],
)
def test_what_pulumi_would_lose_is_refused(write, place, text, said):
    line, _, problem = fault(write(place.replace("{}", text) + "\n"))
    assert line == place.count("\n") + 1
    assert said in problem


@pytest.mark.parametrize(
    "text, said",
    [
        ('{a: "x\\/y"}', "has the escape `\\/`"),
        ("{a: http://x?y=1}", 'has "http://x?y=1" without quotes'),
        ("{a: <<}", 'has "<<" without quotes'),
        ("{a: [1, .inf]}", "not finite"),
        (".nan", "not finite"),
    ],
)
def test_what_only_pyyaml_reads_is_refused(write, text, said):
    line, _, problem = fault(write(EXPERIMENT.replace("gcp:project: another", f"gcp:project: {text}")))
    assert (line, said in problem) == (4, True)


def test_what_only_looks_like_that_is_kept(write):
    text = '{a: "x\\\\/y", b: "http://x?y=1", c: \'\\/\', d: "<<"}\n  gcp:zone: http://x?y=1'
    assert stackfile.load(write(EXPERIMENT.replace("gcp:project: another", f"gcp:project: {text}")))
    assert stackfile.load(write("%YAML 1.1\n---\n" + EXPERIMENT))
    assert "%YAML" in fault(write("# x\n%YAML 1.2\n---\n" + EXPERIMENT))[2]


@pytest.mark.parametrize(
    "old, new, key, said",
    [
        ("gcp:project:", "gcp:a:b:", '4, "gcp:a:b"', "NAMESPACE:NAME"),
        ("encryptionsalt: v1:abc:def", "encryptionsalt: [a]", "encryptionsalt", "allowed is text"),
    ],
)
def test_what_pulumi_refuses_outside_of_the_spec(write, old, new, key, said):
    found = fault(write(EXPERIMENT.replace(old, new)))
    assert found[1] in key and said in found[2]


def test_duplicate_keys_name_both_lines(write):
    line, _, said = fault(write(EXPERIMENT.replace("    limits:", "    project: other\n    limits:")))
    assert line == 16
    assert "the key project again, as in line 6" in said


def test_a_second_document(write):
    assert "begins a second document" in fault(write(EXPERIMENT + "---\na: 1\n"))[2]
    assert stackfile.read(write("---\n" + EXPERIMENT)).kind == "experiment"


def test_a_bomb_of_aliases_is_refused_at_the_first_anchor(write):
    layers = [f"  {chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(9)]
    line, _, said = fault(write("\n".join(["config:", "  a: &a [x]", *layers])))
    assert line == 2
    assert "has the anchor &a" in said


@pytest.mark.parametrize("text", ["[" * 900_000, "{a: " * 200_000, "- " * 400_000])
def test_deep_nesting_is_refused(write, text):
    assert "is nested deeper than 20 levels" in fault(write("config:\n  a: " + text if text[0] != "-" else text))[2]


def test_twenty_levels_are_allowed(write):
    def nested(levels):
        return "config:\n  ems:lab: {}\n  other:key: " + "[" * levels + "]" * levels

    assert stackfile.read(write(nested(yamlfile.MOST_LEVELS - 2))).kind == "lab"
    assert "nested deeper" in fault(write(nested(yamlfile.MOST_LEVELS - 1)))[2]


def test_a_file_of_a_million_keys_is_refused_unread(write):
    text = EXPERIMENT + "".join(f"key{number}: {number}\n" for number in range(1_000_000))
    path = write(text)
    start = time.process_time()
    _, _, said = fault(path)
    assert time.process_time() - start < 2
    assert said.startswith("is larger than 1,000,000 bytes")


def test_the_largest_file_has_its_first_hundred_faults(write):
    keys = "".join(f"    k{number}: 1\n" for number in range(50_000))
    found = faults(write(EXPERIMENT.replace("    project: digits\n", keys)))
    assert len(found) == 101
    assert found[0][:2] == (5, "ems:experiment.project")
    assert "first 100" in found[-1][2]


def test_a_date_without_quotes_is_refused_as_written_and_as_rewritten(write):
    for expires in ("2020-01-01", "2020-01-01 00:00:00 +0000 UTC"):
        funding = f"    funding:\n      a:\n        agency: b\n        expires: {expires}\n"
        lab = f"config:\n  ems:lab:\n    experimenters: {{}}\n    projects: {{}}\n{funding}"
        line, key, said = fault(write(lab))
        assert (line, key) == (8, "ems:lab.funding.a.expires")
        assert said.endswith('quote it: "2020-01-01"')


def test_a_commit_read_as_a_number_is_to_be_quoted(write):
    for commit in ("1" * 40, "1.2345678901234568e+39"):
        line, key, said = fault(write(EXPERIMENT.replace("paths: [src]", f"commit: {commit}")))
        assert (line, key) == (11, "ems:experiment.code.commit")
        assert f"is the number {commit}: quote it" in said
    assert stackfile.load(write(EXPERIMENT.replace("paths: [src]", f'commit: "{"1" * 40}"'))).code.commit == "1" * 40


def test_a_number_in_quotes_is_text(write):
    _, _, said = fault(write(EXPERIMENT.replace("hours: 1", "hours: '1e-3'")))
    assert said.startswith('is the text "1e-3": ')
    assert stackfile.load(write(EXPERIMENT.replace("hours: 1", "hours: 1e-3"))).limits.max_hours == 0.001


def test_references_to_the_lab():
    lab = spec.parse("lab", LAB)
    good = {
        "project": "digits",
        "experimenter": "researcher",
        "funding": "grant",
        "environment": "e",
        "job": {"command": "x"},
        "results": {"table": "t"},
    }
    known = {"project": lab.projects, "experimenter": lab.experimenters, "funding": lab.funding, "environment": ["e"]}
    assert stackfile.references(good, known) == []
    bad = good | {"project": "digit", "funding": "zzz", "experimenter": "resercher", "environment": 3}
    found = {fault.key: fault.problem for fault in stackfile.references(bad, known)}
    assert found["ems:experiment.project"] == (
        'is "digit", which the lab does not have: did you mean digits? allowed are digits'
    )
    assert "did you mean researcher?" in found["ems:experiment.experimenter"]
    assert found["ems:experiment.funding"].endswith("allowed are grant")


LINE = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=8)
KEYS = st.sampled_from([*spec.ExperimentSpec.model_fields, "kind", "paths", "command", "secure", "max_hours", "a.b"])
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LINE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | LINE, inner, max_size=6),
    max_leaves=20,
)


@given(data=DATA)
def test_the_same_faults_from_file_and_from_json(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "Pulumi.same.yaml"
    path.write_text(json.dumps({"config": {"ems:experiment": data}}, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(StackFileError) as handed:
        spec.parse("experiment", json.loads(json.dumps(data)))
    with pytest.raises(StackFileError) as read:
        stackfile.load(path)
    assert sorted(read.value.faults, key=str) == sorted(stackfile.locate(handed.value.faults, path), key=str)
    assert all(fault.line == 1 for fault in read.value.faults)
