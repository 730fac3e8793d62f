"""What `ems check` finds, and what `ems up` refuses before anything is made."""

from __future__ import annotations

import dataclasses

import pytest

from ems import clusters
from ems.base.errors import EmsError, ProvenanceError, StackFileError, UserError
from ems.engine import lifecycle, preflight
from ems.lab.stacks import StackFiles
from ems.stack import stackfile
from tests.conftest import commit

SHA = "0" * 64


def change(here, stack="pi", **replacements):
    file = here.stack_file(stack)
    text = file.read_text()
    for old, new in replacements.items():
        assert f"{old}: " in text
        lines = [f"{line.split(old)[0]}{old}: {new}" if f" {old}: " in line else line for line in text.splitlines()]
        text = "\n".join(lines) + "\n"
    file.write_text(text)


def said(here, stack="pi", code=0):
    found = preflight.report(StackFiles(here, clusters.settings()), stack)
    assert found.exit_code == code and bool(found.problems) is bool(code), found
    if code:
        with pytest.raises(EmsError):
            preflight.require(StackFiles(here, clusters.settings()), stack)
    return "\n".join(found.problems)


def test_a_sound_stack_has_the_id_that_up_registers(here):
    assert (
        preflight.report(StackFiles(here, clusters.settings()), "lab").summary == "lab"
        and preflight.require(StackFiles(here, clusters.settings()), "lab") is None
    )
    assert said(here) == ""
    registration = preflight.require(StackFiles(here, clusters.settings()), "pi")
    assert preflight.report(StackFiles(here, clusters.settings()), "pi").summary == f"experiment {registration.id}"
    assert (registration.cluster, registration.environment) == ("laptop", "pi")


def test_unknown_references_stand_with_their_lines(here):
    change(here, project="frist", experimenter="you", funding="nobody")
    commit(here.root)
    text = said(here, code=2)
    for part in ("Pulumi.pi.yaml:4: ems:experiment.project", '"frist"', "did you mean first?", '"you"', '"nobody"'):
        assert part in text


def test_faults_of_all_sorts_are_told_together(here):
    change(here, project="frist")
    (here.root / "environments/pi/requirements.txt").write_text("numpy\n")
    text = said(here, code=3)
    assert "frist" in text and "Not as in the last commit" in text and "'numpy' is not pinned" in text


def test_a_dirty_tree_and_code_that_is_not_there(here):
    (here.root / "experiments/pi/main.py").write_text("edited")
    assert "M experiments/pi/main.py" in said(here, code=3)
    commit(here.root)
    change(here, paths="[experiments/nosuch]")
    commit(here.root)
    assert "'experiments/nosuch': not in commit" in said(here, code=3)


@pytest.mark.parametrize(
    "lock, fault",
    [("numpy\n", "'numpy' is not pinned"), ("a==1\n", "no --hash"), ("-e .\n", "'-e' is not allowed in a lock")],
)
def test_an_unpinned_lock_is_an_error(lock, fault, here):
    (here.root / "environments/pi/requirements.txt").write_text(f"# made by hand\n{lock}")
    commit(here.root)
    text = said(here, code=3)
    assert text.count(fault) == 1 and "environments/pi/requirements.txt:2" in text


@pytest.mark.parametrize("version", ["2.7", "3.8", "three"])
def test_a_python_that_cannot_be_is_an_error(version, here):
    (here.root / "environments/pi/python-version").write_text(version)
    commit(here.root)
    assert f"python-version: is '{version}': allowed is" in said(here, code=3)


def test_a_missing_environment_is_an_error(here):
    change(here, environment="nosuch")
    commit(here.root)
    assert "'nosuch' has no python-version and no requirements.txt" in said(here, code=3)


def test_rendering_libraries_are_only_warned_of(here):
    (here.root / "environments/pi/requirements.txt").write_text(f"matplotlib==3.9.0 --hash=sha256:{SHA}\n")
    commit(here.root)
    assert said(here) == ""
    (warning,) = preflight.report(StackFiles(here, clusters.settings()), "pi").warnings
    assert "matplotlib" in warning and "renders" in warning


def test_a_cluster_that_is_another_stack(here):
    text = here.stack_file("pi").read_text().replace("kind: laptop", "stack: sherlock")
    here.stack_file("pi").write_text(text)
    commit(here.root)
    shown = said(here, code=2)
    assert 'Pulumi.pi.yaml:18: ems:experiment.cluster.stack: is "sherlock"' in shown and "none yet" in shown
    here.stack_file("sherlock").write_text("config:\n  ems:cluster:\n    kind: laptop\n")
    commit(here.root)
    assert said(here) == "" and said(here, "sherlock") == ""
    registration = preflight.require(StackFiles(here, clusters.settings()), "pi")
    assert registration is not None and registration.cluster == "sherlock"
    here.stack_file("pi").write_text(text.replace("sherlock", "sherlok"))
    commit(here.root)
    assert "did you mean sherlock? allowed are sherlock" in said(here, code=2)


def test_a_broken_lab_file_is_told_once_where_it_is(here):
    here.stack_file("lab").write_text("config: [\n")
    assert said(here) == ""
    assert "Pulumi.lab.yaml" in said(here, "lab", code=2)


def test_what_up_refuses_is_the_first_fault(here):
    with pytest.raises(StackFileError, match="did you mean pi"):
        preflight.require(StackFiles(here, clusters.settings()), "pii")
    (here.root / "experiments/pi/new.py").touch()
    with pytest.raises(ProvenanceError, match="git add"):
        preflight.require(StackFiles(here, clusters.settings()), "pi")
    here.plugin().unlink()
    with pytest.raises(UserError, match="plugins"):
        preflight.require(StackFiles(here, clusters.settings()), "pi")


def test_the_order_is_lab_places_experiments(here):
    here.stack_file("sherlock").write_text("config:\n  ems:cluster:\n    kind: laptop\n")
    assert [preflight.rank(StackFiles(here, clusters.settings()), stack) for stack in ("lab", "sherlock", "pi")] == [
        0,
        1,
        2,
    ]


def test_a_command_reads_each_stack_file_once(here, monkeypatch):
    opened = []
    load = stackfile.load
    monkeypatch.setattr(stackfile, "load", lambda path, places: opened.append(path.name) or load(path, places))
    stacks = StackFiles(here, clusters.settings())
    assert lifecycle.in_order(stacks, here.stacks()) == ["lab", "pi"]
    assert preflight.require(stacks, "lab") is None
    assert preflight.require(stacks, "pi")
    preflight.require_inputs(stacks, "pi")
    assert preflight.report(stacks, "pi").exit_code == 0
    assert sorted(opened) == ["Pulumi.lab.yaml", "Pulumi.pi.yaml"]


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgres://db/lab", "Did you mean postgresql://db/lab?"),
        ("mysql://db/lab", "Allowed: bigquery://…, dynamodb://…, postgresql://…, sqlite://…"),
        ("ems.db", "sqlite:///ems.db"),
        ("", "sqlite:///.ems/ems.db"),
        ("sqlite://x", "sqlite:///"),
        ("postgresql://me:secret@db/lab", "~/.pgpass"),
    ],
)
def test_the_databases_address_is_read_before_anything_is_made(here, url, hint):
    wrong = dataclasses.replace(here, database_url=url)
    report = preflight.report(StackFiles(wrong, clusters.settings()), "lab")
    assert report.exit_code == 2 and hint in "\n".join(report.problems)
    assert "me:secret" not in "\n".join(report.problems)
