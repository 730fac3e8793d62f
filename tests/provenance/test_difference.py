"""A stack that has run is another experiment now: why is said before anything is computed."""

from __future__ import annotations

import subprocess

import pytest

from ems import clusters
from ems.cli import new_stack
from ems.engine import preflight
from ems.lab import Lab
from ems.lab.stacks import StackFiles
from tests.conftest import commit, registered


@pytest.fixture
def ran(here: Lab) -> str:
    """The first 8 letters of the id of the stack `fit`'s experiment, whose code is the whole repository."""
    (here.root / "train.py").write_text("print(1)\n")
    (here.root / "old.py").write_text("print(0)\n")
    new_stack.of_command(here, "fit", "python train.py")
    commit(here.root)
    return registered(here, "fit").id[:8]


def warned(here: Lab) -> list[str]:
    found = preflight.report(StackFiles(here, clusters.settings()), "fit")
    assert found.problems == ()
    return [line for line in found.warnings if "another experiment" in line]


def test_files_of_the_code_that_differ_are_named(here: Lab, ran: str) -> None:
    assert warned(here) == []
    (here.root / "README.md").write_text("Changed.\n")
    commit(here.root)
    assert warned(here) == []
    (here.root / "data").mkdir()
    (here.root / "data/a.csv").write_text("x\n")
    (here.root / "train.py").write_text("print(2)\n")
    (here.root / "old.py").unlink()
    commit(here.root)
    assert warned(here) == [
        f"another experiment than {ran}, its last one, as its code differs: data/a.csv (new), old.py (gone), "
        "train.py (changed); `code: {paths: […]}` narrows what counts"
    ]


def test_what_the_stack_file_says_is_named_by_its_key(here: Lab, ran: str) -> None:
    file = here.stack_file("fit")
    before = "    results:\n      table: fit"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, "    env: {A: b}\n    results:\n      table: x"))
    commit(here.root)
    assert warned(here) == [f"another experiment than {ran}, its last one, as its stack file differs: env"]
    registered(here, "fit")
    assert warned(here) == []


def test_of_a_commit_that_is_gone_it_is_said_that_the_code_differs(here: Lab, ran: str) -> None:
    (here.root / "more.py").write_text("print(2)\n")
    for words in (["add", "-A"], ["commit", "-q", "--amend", "--no-edit"]):
        subprocess.run(["git", "-c", "user.name=e", "-c", "user.email=e@x", *words], cwd=here.root, check=True)
    for words in (["reflog", "expire", "--expire=now", "--all"], ["gc", "-q", "--prune=now"]):
        subprocess.run(["git", *words], cwd=here.root, check=True)
    assert warned(here) == [
        f"another experiment than {ran}, its last one, as its code differs; `code: {{paths: […]}}` narrows what counts"
    ]
