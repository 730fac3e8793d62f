"""`ems.progress` and `ems.watch` in scripts; a real kernel runs them in end_to_end/test_notebooks.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

import ems
from ems.base.errors import UserError
from ems.databases import State
from ems.lab import Lab
from tests.conftest import ran
from tests.databases.cases import batch, floats
from tests.views.test_progress import end

LOOP = """
import sys
sys.modules["IPython"] = None  # as where it is not installed
import ems
for progress in ems.watch("pi"):
    print(progress.state, len(ems.results("pi")))
"""


def test_progress_is_that_of_the_newest_experiment(here: Lab) -> None:
    ran(here, batch([0, 0], floats("x", 1.5, 2.5), rows=[0, 1]))
    progress = ems.progress("pi")
    assert (progress.stack, progress.state, progress.finished) == ("pi", "succeeded", True)
    assert (progress.points_done, progress.points_failed, progress.points_total, progress.rows) == (1, 0, 1, 2)


def test_reading_rows_and_progress_loads_neither_pulumi_nor_gitpython(here: Lab) -> None:
    ran(here, batch([0], floats("x", 1.5)), state=None)
    code = "import sys, ems; assert len(ems.results('pi')) == 1; ems.progress('pi'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here.root)
    assert not {"pulumi", "grpc", "git", "matplotlib"} & set(loaded.stdout.split())


def test_without_a_row_that_fulfils_the_conditions_the_columns_are_there(here: Lab) -> None:
    ran(here, batch([0], floats("x", 1.5)))
    frame = ems.results("pi", where=["x > 2"])
    assert (len(frame), list(frame.columns), frame.x.sum()) == (0, ["point", "row", "x"], 0.0)


def test_unknown_stacks_are_told_at_once(here: Lab) -> None:
    ran(here, batch([0], floats("x", 1.5)))
    for call in (ems.progress, ems.watch):
        with pytest.raises(UserError, match="no stack 'other'"):
            call("other")
        with pytest.raises(UserError, match="describes the lab, and runs nothing"):
            call("lab")


def test_watching_turns_until_the_run_has_ended(here: Lab) -> None:
    running = ran(here, batch([0], floats("x", 1.5)), state=None)
    states = []
    for progress in ems.watch("pi"):
        states.append(progress.state)
        if len(states) == 2:
            end(here, running)
    assert states[:2] == [State.RUNNING] * 2 and states[-1] is State.SUCCEEDED and len(states) >= 3


def test_watching_all_gives_tuples(here: Lab) -> None:
    ran(here, batch([0], floats("x", 1.5)))
    (turn,) = ems.watch()
    assert [progress.stack for progress in turn] == ["pi"]
    assert repr(turn).startswith("pi: succeeded") and "<b>pi</b>" in turn._repr_html_()
    assert "for progress in ems.watch('pi')" in repr(ems.watch("pi"))


def test_in_a_script_without_ipython_it_says_lines(here: Lab) -> None:
    ran(here, batch([0], floats("x", 1.5)))
    done = subprocess.run([sys.executable, "-c", LOOP], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "succeeded 1\n"), done.stderr
    assert done.stderr.startswith("pi: succeeded · 1 row ·") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("ask", [ems.results, ems.progress, ems.watch])
def test_a_name_that_is_no_text_is_refused(here: Lab, ask: Callable[[object], object]) -> None:
    with pytest.raises(UserError, match="3 is not the name of a stack"):
        ask(3)


def test_importing_ems_imports_little() -> None:
    code = "import sys, ems; print([name for name in ('pandas', 'sqlalchemy', 'rich') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"[]\n"
    with pytest.raises(AttributeError, match="nothing"):
        ems.nothing  # noqa: B018
