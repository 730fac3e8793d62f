"""What `ems up` shows while stacks are under way, and how each has ended."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from ems.base.console import Plain
from ems.databases import Experiment, State
from ems.lab import Lab
from ems.views.board import Board, ended
from tests.conftest import registered


@pytest.fixture
def experiment(here: Lab) -> Experiment:
    return registered(here)


def board(here: Lab, width: int | None = None, total: int = 1) -> tuple[Board, io.StringIO]:
    """With a `width` on a terminal."""
    file = io.StringIO()
    return Board(Plain(file=file, width=width or 80, force_terminal=width is not None), here, total), file


def test_elsewhere_than_on_a_terminal_a_step_is_a_line_once_whatever_its_numbers(here: Lab) -> None:
    shown, file = board(here)
    with shown.shown(), shown.stack("pi") as line:
        for number in range(100):
            line.say(f"Building pulumi: {number} of 900 packages")
        line.say("bundling the code")
        line.note("the agent ended; another one was started")
    assert file.getvalue() == (
        "pi: Building pulumi: 0 of 900 packages\npi: bundling the code\npi: the agent ended; another one was started\n"
    )


def test_a_run_is_a_line_every_so_often(here: Lab, experiment: Experiment) -> None:
    shown, file = board(here)
    with shown.stack("pi") as line:
        for rows in range(1000):
            line.look(replace(experiment, state=State.RUNNING, rows_stored=rows))
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("pi: running · 0 rows") and len(lines) < 100


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("points", [1, 400])
def test_a_line_fits_a_terminal(here: Lab, experiment: Experiment, width: int, points: int) -> None:
    shown, _ = board(here, width)
    console = Plain(file=io.StringIO(), width=width, force_terminal=True)
    row = replace(experiment.registration, points_total=points)
    with shown.stack("a-stack-of-a-long-name") as line:
        line.look(replace(experiment, registration=row, state=State.RUNNING, points_done=76, points_failed=12))
        with console.capture() as captured:
            console.print(shown)
    (drawn,) = console.render_str(captured.get()).plain.splitlines()
    assert "a-stack-of" in drawn and ("%" in drawn) == (points > 1)


def test_ends_are_counted_where_there_are_several(here: Lab, experiment: Experiment) -> None:
    shown, file = board(here, total=3)
    shown.end("lab", None, ran=True)
    shown.end("pi", replace(experiment, state=State.SUCCEEDED, rows_stored=2), ran=False)
    shown.fail("e", "No such place.")
    assert file.getvalue() == "[1/3] ✓ lab\n[2/3] ✓ pi already computed (2 rows)\n[3/3] ✗ e No such place.\n"


def test_where_no_row_was_stored_the_files_that_were_left_are_told(here: Lab, experiment: Experiment) -> None:
    shown, file = board(here)
    left = '[{"name": "point-0/final.txt", "bytes": 4, "files": 1, "attempt": 1}]'
    shown.end("pi", replace(experiment, state=State.SUCCEEDED, rows_stored=0, files_left=left, log_tail=""), ran=True)
    assert "0 rows · 1 file left: nothing was stored" in file.getvalue()


@pytest.mark.parametrize(
    "state, error, said",
    [
        (State.SUCCEEDED, "", "✓ pi succeeded · 1 row"),
        (State.FAILED, "exit code 1: ValueError: no\nSee the log.", "✗ pi failed · 1 row: exit code 1: ValueError: no"),
        (State.RUNNING, "", "▸ pi running · 1 row; it goes on by itself: ems status"),
    ],
)
def test_an_end_says_what_happened_and_why(experiment: Experiment, state: State, error: str, said: str) -> None:
    found = replace(experiment, state=state, error=error, rows_stored=1)
    assert ended("pi", found, ran=True).plain == said


def test_what_is_odd_about_a_run_with_rows_is_said_in_its_line(experiment: Experiment) -> None:
    told = "5 rows; no row has a value of zip, declared in `results: columns`; not read: plot.png (2 bytes)"
    succeeded = replace(experiment, state=State.SUCCEEDED, rows_stored=5, log_tail=told)
    line = ended("pi", succeeded, ran=True).plain
    assert line.endswith(": no row has a value of zip, declared in `results: columns`")
    told = "5 rows; not read: plot.png (2 bytes)"
    assert "not read" not in ended("pi", replace(succeeded, log_tail=told), ran=True).plain
