"""Repositories that are there: from a clone to the first rows, with their own locks, packages and folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ems.base.process import uv
from tests.end_to_end.conftest import User

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PYPROJECT = f"""\
[project]
name = "phase"
version = "0.3"
requires-python = ">={PYTHON}"
dependencies = ["tabulate"]
[project.scripts]
phase-run = "phase.main:main"
[dependency-groups]
simulation = ["six"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""
MAIN = """\
import argparse
import csv
import os
from importlib.metadata import version
from pathlib import Path

import six
import tabulate

from phase.model import rate


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float)
    lr = parser.parse_args().lr
    with (Path(os.environ["EMS_RESULTS_DIR"]) / "rows.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["version", "rate", "six"])
        rows.writerow([version("phase"), rate(lr), six.__name__])
"""
FILES = {
    "pyproject.toml": PYPROJECT,
    ".python-version": f"{PYTHON}\n",
    "src/phase/__init__.py": "",
    "src/phase/main.py": MAIN,
    "src/phase/model.py": "def rate(lr):\n    return 2 * lr\n",
    "train.py": "from phase.main import main\n\nmain()\n",
}


def made(root: Path, files: dict[str, str]) -> User:
    """Somebody in a repository with these files, which uv has locked and git has committed."""
    (root / ".ems").mkdir(parents=True)
    user = User(root)
    for name, text in files.items():
        user.write(name, text)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
    uv("lock", "--quiet", cwd=root)
    user.commit("The study")
    return user


def edit(user: User, stack: str, *changes: tuple[str, str]) -> None:
    file = user.root / f"stacks/Pulumi.{stack}.yaml"
    text = file.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


def rows(user: User, stack: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(user.ems("results", stack, "--format", "json").stdout)
    return found


@pytest.fixture
def user(tmp_path: Path):
    somebody = made(tmp_path / "study", FILES)
    yield somebody
    somebody.end()


def grid(text: str) -> str:
    """The stack file with the grid that stands there as comments, instead of the line above it."""
    lines = text.splitlines()
    (place,) = (place for place, line in enumerate(lines) if line.lstrip().startswith("# A grid instead"))
    end = next(end for end, line in enumerate(lines) if line.startswith("    results:"))
    offered = [line.replace("# ", "", 1) for line in lines[place + 1 : end]]
    return "\n".join([*lines[: place - 1], *offered, *lines[end:], ""])


def test_from_a_clone_to_the_first_rows_by_four_commands_and_one_edited_file(user: User) -> None:
    clone = User(user.root.parent / "clone")
    subprocess.run(["git", "clone", "-q", str(user.root), str(clone.root)], check=True)
    clone.ems("init", ".", "--yes")
    clone.ems("new", "fit", "--command", "python train.py --lr 0.1")
    edit(clone, "fit", ("lock: uv.lock", "lock: uv.lock, groups: [simulation]"))
    clone.commit("A lab, and its first experiment")
    clone.ems("up", "fit")
    (row,) = rows(clone, "fit")
    assert (row["version"], row["rate"], row["six"]) == (0.3, 0.2, "six")
    assert "already computed" in clone.ems("up", "fit").stdout
    clone.end()


def test_the_packages_own_program_over_the_grid_that_is_offered(user: User) -> None:
    user.ems("init", ".", "--yes")
    user.ems("new", "fit", "--command", "phase-run --lr 0.1")
    edit(user, "fit", ("lock: uv.lock", "lock: uv.lock, groups: [simulation]"), ("[0.1]", "[0.1, 0.2, 0.4]"))
    file = user.root / "stacks/Pulumi.fit.yaml"
    file.write_text(grid(file.read_text()))
    user.commit("A lab")
    user.ems("up", "fit")
    assert [(row["lr"], row["rate"]) for row in rows(user, "fit")] == [(0.1, 0.2), (0.2, 0.4), (0.4, 0.8)]


def test_a_change_of_the_lock_is_another_experiment_and_one_of_a_group_that_is_not_named_is_not(user: User) -> None:
    user.ems("init", ".", "--yes")
    user.ems("new", "fit", "--command", "phase-run --lr 0.1")
    edit(user, "fit", ("    job:", "    code: {paths: [src]}\n    job:"))
    user.commit("A lab")

    def identity() -> str:
        (report,) = json.loads(user.ems("check", "fit", "--json").stdout)
        return str(report["summary"])

    before = identity()
    user.write("pyproject.toml", PYPROJECT.replace('["six"]', '["six", "iniconfig"]'))
    assert "pyproject.toml" in user.ems("check", "fit", expect=3).stdout
    uv("lock", "--quiet", cwd=user.root)
    user.commit("Another group")
    assert identity() == before
    user.write("pyproject.toml", PYPROJECT.replace('["tabulate"]', '["tabulate", "iniconfig"]'))
    uv("lock", "--quiet", cwd=user.root)
    user.commit("Another package")
    assert identity() != before


def test_what_is_checked_needs_no_network(user: User) -> None:
    user.ems("init", ".", "--yes")
    user.ems("new", "fit", "--command", "phase-run --lr 0.1")
    user.commit("A lab")
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    user.ems("check", UV_CACHE_DIR=str(user.root.parent / "empty"), UV_INDEX_URL="http://127.0.0.1:9/simple", **nowhere)


def test_a_function_of_the_package_is_found_where_the_lock_has_it(user: User) -> None:
    user.ems("init", ".", "--yes")
    user.ems("new", "fit", "--function", "phase.model:rate")
    user.commit("A lab")
    said = user.ems("check", "fit", expect=2).stdout
    assert "ems:experiment.job.sweep.lr: is empty" in said
    edit(user, "fit", ("lr:  # FILL IN: as [1, 2, 3]", "lr: [1, 2]"), ("phase.model:rate", "phase.model:rat"))
    user.commit("Values, and a wrong name")
    said = user.ems("check", "fit", expect=3).stdout
    assert "uv.lock: has no dask" in said and "uv add 'dask[distributed]'" in said


def test_a_lab_in_a_folder_of_a_repository_works_whole(tmp_path: Path) -> None:
    top = made(tmp_path / "mono", {"pyproject.toml": WORKSPACE, "web/index.html": "x\n"} | below("labs/phase", FILES))
    user = User(top.root / "labs/phase")
    (user.root / ".ems").mkdir()
    user.ems("init", ".", "--yes")
    assert not (user.root / ".git").exists()
    user.ems("new", "fit", "--command", "python train.py --lr 0.1")
    edit(user, "fit", ("lock: ../../uv.lock", "lock: ../../uv.lock, groups: [simulation]"))
    said = user.ems("check", "fit", expect=3).stdout
    assert "git add stacks/Pulumi.fit.yaml" in said
    user.commit("A lab")
    user.ems("check")
    user.ems("up", "fit")
    (row,) = rows(user, "fit")
    assert (row["version"], row["rate"]) == (0.3, 0.2)
    (experiment,) = json.loads(user.ems("status", "--json").stdout)
    assert experiment["state"] == "succeeded" and experiment["environment"] == "../../uv.lock (simulation)"
    top.write("web/index.html", "y\n")
    assert "already computed" in user.ems("up", "fit").stdout  # what lies beside the lab does not concern it
    top.commit("The other part")
    assert "already computed" in user.ems("up", "fit").stdout
    user.write("src/phase/model.py", "def rate(lr):\n    return 3 * lr\n")
    assert "labs/phase/src/phase/model.py" in user.ems("up", "fit", expect=3).stderr
    user.commit("Another rate")
    user.ems("up", "fit")
    assert [row["rate"] for row in rows(user, "fit")] == pytest.approx([0.3])
    user.end()
    top.end()


WORKSPACE = f"""\
[project]
name = "top"
version = "0"
requires-python = ">={PYTHON}"
dependencies = ["iniconfig"]
[tool.uv.workspace]
members = ["labs/*"]
"""


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_requirements_that_are_not_pinned_become_an_environment(tmp_path: Path) -> None:
    script = 'import os, pathlib, six\n(pathlib.Path(os.environ["EMS_RESULTS_DIR"]) / "a.csv").write_text("a\\n1\\n")\n'
    root = tmp_path / "plain"
    (root / ".ems").mkdir(parents=True)
    user = User(root)
    user.write("requirements.txt", "six>=1.16\n")
    user.write("run.py", script)
    user.ems("init", ".", "--yes")
    user.ems("new", "fit", "--command", "python run.py")
    user.commit("A lab")
    user.ems("up", "fit")
    assert [row["a"] for row in rows(user, "fit")] == [1]
    assert [each.name for each in (root / "environments").iterdir()] == ["main"]
    user.end()
