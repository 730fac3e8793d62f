"""Folders of the repository's own modules: `ems new` writes them into `env:`, unless a lock installs the package."""

from __future__ import annotations

import pytest

from ems import clusters
from ems.cli import new_stack as stack
from ems.engine import preflight
from ems.lab.stacks import StackFiles
from ems.stack import yamlfile
from tests.conftest import commit


def described(lab, name):
    content, _ = yamlfile.read(lab.stack_file(name))
    return content["config"]["ems:experiment"]


@pytest.fixture(autouse=True)
def package(here):
    package = here.root / "src/phase"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "core.py", "inner/__init__.py"):
        (package / name).write_text("def f(a=1): ...\n")
    (here.root / "train.py").write_text("import csv\ndef main():\n    from phase.core import f\n")


@pytest.mark.parametrize("name", ["phase:f", "phase.core:f", "phase.inner:f"])
def test_of_a_function(name, here):
    stack.of_function(here, "fit", name)
    assert described(here, "fit")["env"] == {"PYTHONPATH": "src"}
    commit(here.root)
    assert not preflight.report(StackFiles(here, clusters.settings()), "fit").warnings


@pytest.mark.parametrize("line", ["python train.py 3", "python -m phase.core --k 3", "python -u -m phase.core"])
def test_of_a_program(line, here):
    stack.of_command(here, "fit", line)
    assert described(here, "fit")["env"] == {"PYTHONPATH": "src"}


def test_of_pyproject(here):
    (here.root / "src").rename(here.root / "lib")
    (here.root / "pyproject.toml").write_text('[tool.setuptools.packages.find]\nwhere = ["lib"]\n')
    stack.of_command(here, "fit", "python train.py")
    assert described(here, "fit")["env"] == {"PYTHONPATH": "lib"}


def test_what_was_typed_counts(here):
    stack.of_command(here, "fit", "PYTHONPATH=src:more python train.py")
    assert described(here, "fit")["env"] == {"PYTHONPATH": "src:more"}


@pytest.mark.parametrize("line", ["python src/phase/core.py", "python -m json.tool", "python src/run.py", "echo -m"])
def test_none_is_needed(line, here):
    (here.root / "src/run.py").write_text("import phase\n")
    stack.of_command(here, "fit", line)
    assert "env" not in described(here, "fit")


def test_a_lock_that_installs_the_package_brings_them_along(here):
    (here.root / "uv.lock").write_text('[[package]]\nname = "phase"\nsource = { editable = "." }\n')
    stack.of_function(here, "fit", "phase.core:f")
    assert "env" not in described(here, "fit")
    (here.root / "uv.lock").write_text('[[package]]\nname = "phase"\nsource = { virtual = "." }\n')
    stack.of_function(here, "other", "phase.core:f")
    assert described(here, "other")["env"] == {"PYTHONPATH": "src"}
