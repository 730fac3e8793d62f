"""New labs and experiments: what is made is right as it is, and what is refused leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from ems import clusters
from ems import lab as laboratory
from ems.base.errors import UserError
from ems.cli import scaffold
from ems.engine import preflight
from ems.lab.stacks import StackFiles
from tests.conftest import commit


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def git(root, *words):
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def clean(lab):
    return [
        report.problems
        for report in (preflight.report(StackFiles(lab, clusters.settings()), stack) for stack in lab.stacks())
    ]


def test_a_new_lab_is_committed_and_without_fault(tmp_path):
    lab = scaffold.init(tmp_path / "study")
    assert lab == laboratory.find(lab.root) and lab.name == "study"
    assert git(lab.root, "status", "--porcelain") == "" and git(lab.root, "rev-list", "--count", "HEAD") == "1"
    assert git(lab.root, "log", "-1", "--format=%an <%ae> %cn") == "EMS <ems@localhost> EMS"  # git knows nobody
    assert lab.stacks() == ["lab", "pi"] and clean(lab) == [(), ()]
    assert (lab.root / "environments/pi/python-version").read_text() == "{}.{}\n".format(*sys.version_info)
    assert os.access(lab.plugin(), os.X_OK)
    assert ".ems/" in (lab.root / ".gitignore").read_text()
    assert lab.id != scaffold.init(tmp_path / "another").id


@pytest.mark.parametrize("folder", ["a folder", "dätä ünd mehr", "100%", "it's $", "$HOME", "a ${PATH}", 'quo"te [x]'])
def test_any_path_will_do_and_the_name_is_made_to_fit(folder, tmp_path):
    lab = scaffold.init(tmp_path / folder / "läb 1")
    assert lab.name == "lab-1" and clean(lab) == [(), ()]


@pytest.mark.parametrize(
    "folder, name",
    [
        ("2024 data", "lab-2024-data"),
        ("日本", "lab"),
        ("-x-", "x"),
        ("a.b", "a-b"),
        ("x" * 80, "x" * 50),
        ("_a", "lab-_a"),
    ],
)
def test_names_of_labs_are_ones_that_pulumi_takes(folder, name, tmp_path):
    lab = scaffold.init(tmp_path / folder)
    assert lab.name == name and scaffold.NAME.fullmatch(name)
    assert yaml.safe_load((lab.root / "Pulumi.yaml").read_text())["name"] == name


@pytest.mark.parametrize("name", ['Ann "Annie" O\'Brien', "Ünal $x ${y}", "a: b # c", "- x", "\\n", "{}", "日本"])
def test_any_person_can_begin_a_lab(name, tmp_path):
    (tmp_path / "home/.gitconfig").touch()
    git(tmp_path, "config", "--global", "user.name", name)
    git(tmp_path, "config", "--global", "user.email", "ann@example.org")
    lab = scaffold.init(tmp_path / "study")
    described = yaml.safe_load(lab.stack_file("lab").read_text())["config"]["ems:lab"]
    assert described["experimenters"]["me"] == {"name": name, "email": "ann@example.org"}
    assert clean(lab) == [(), ()]
    recorded = name.removeprefix("\\")  # which git does not take at the start of a name
    assert git(lab.root, "log", "-1", "--format=%an|%ae") == f"{recorded}|ann@example.org"


def test_an_empty_folder_will_do_and_a_full_one_not(tmp_path):
    (tmp_path / "empty").mkdir()
    scaffold.init(tmp_path / "empty")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").touch()
    with pytest.raises(UserError, match=f"{full} is not empty"):
        scaffold.init(full)
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="cannot be made"):
        scaffold.init(full / "thesis.tex")
    with pytest.raises(UserError, match="cannot be made: Not a directory"):
        scaffold.init(full / "thesis.tex" / "lab")


@pytest.mark.parametrize("name", ["a b", "9a", "a/b", "..", "ä", "a\n", "x" * 51, "-a"])
def test_bad_names_are_refused_before_anything_is_made(name, tmp_path, here):
    with pytest.raises(UserError, match="beginning with a letter"):
        scaffold.init(tmp_path / "study", name)
    assert not (tmp_path / "study").exists()
    before = sorted(here.root.rglob("*"))
    with pytest.raises(UserError, match="beginning with a letter"):
        scaffold.new(here, name)
    assert sorted(here.root.rglob("*")) == before


@pytest.mark.parametrize("name", ["dose-response", "Experiment", "run", "sqlite_x", "pg-x", "x" * 50])
def test_a_new_experiment_is_without_fault_once_committed(name, here):
    written = scaffold.new(here, name)
    assert here.stack_file(name) in written and all(path.is_file() for path in written)
    commit(here.root)
    assert clean(here) == [(), (), ()]


@pytest.mark.parametrize("taken", ["stacks/Pulumi.second.yaml", "environments/second/python-version"])
def test_a_taken_name_is_refused_and_nothing_is_written(taken, here):
    (here.root / taken).parent.mkdir(exist_ok=True)
    (here.root / taken).write_text("mine")
    before = sorted(here.root.rglob("*"))
    with pytest.raises(UserError, match=f"There is already {taken}"):
        scaffold.new(here, "second")
    assert sorted(here.root.rglob("*")) == before and (here.root / taken).read_text() == "mine"


def test_a_new_experiment_takes_what_the_lab_has(here):
    file = here.stack_file("lab")
    file.write_text(file.read_text().replace("  me:", "  ann:").replace("  first:", "  topic:"))
    scaffold.new(here, "second")
    text = here.stack_file("second").read_text()
    assert "experimenter: ann" in text and "project: topic" in text
    file.unlink()
    with pytest.raises(UserError, match=r"Pulumi\.lab\.yaml: does not exist"):
        scaffold.new(here, "third")
