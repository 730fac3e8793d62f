"""Which Python an environment stands on."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from ems.base.errors import ProvenanceError
from ems.node.environments import python
from ems.node.environments.recipe import Recipe
from tests.node.test_environments import HERE, LOCK, lab

__all__ = ["lab"]


def test_a_python_that_is_not_there_is_named_with_those_that_are_and_the_setting(lab):
    lab.recipe = Recipe("small", "b" * 64, "3.99", LOCK)
    with pytest.raises(ProvenanceError) as caught:
        lab.unpacked()
    said = str(caught.value)
    assert "'small' needs Python 3.99" in said and f"{HERE}." in said
    assert "uv python install 3.99" in said and "`modules`" in said


def test_where_none_is_on_the_path_that_of_uv_is_taken(lab, tmp_path, monkeypatch):
    brought = tmp_path / f"pythons/cpython-{platform.python_version()}-linux-{platform.machine()}-gnu/bin/python{HERE}"
    brought.parent.mkdir(parents=True)
    brought.symlink_to(Path(sys._base_executable).resolve())
    monkeypatch.setenv("PATH", str(tmp_path))
    lab.variables["UV_PYTHON_INSTALL_DIR"] = str(tmp_path / "pythons")
    found = python.find(lab.recipe, lab.order("n1"))
    assert found.version == sys.version_info[:3]


@pytest.mark.parametrize(
    ("wanted", "version", "taken"),
    [
        ("3.11", (3, 11, 4), True), ("3.11", (3, 12, 0), False), ("3.11.4", (3, 11, 4), True),
        ("3.11.4", (3, 11, 5), False), ("3.11+", (3, 13, 0), True), ("3.11+", (3, 10, 9), False),
        ("3.1", (3, 11, 0), False),
    ],
)  # fmt: skip
def test_which_python_an_environment_takes(wanted, version, taken):
    assert Recipe("e", "", wanted, "").takes(version) is taken
