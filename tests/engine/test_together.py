"""Several stacks brought up side by side."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import replace

import pytest

from ems.base.errors import EmsError, ExperimentFailed, Fault, ProvenanceError, StackFileError
from ems.base.threads import Threads
from ems.databases import State
from ems.engine import lifecycle, manners, together
from ems.lab.telling import Unheard
from tests.views.drawing import FINISHED


class Board(Unheard):
    """Keeps what has failed."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    def fail(self, name, error):
        self.failed[name] = error


def ended(error: BaseException | None = None) -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(error) if error else future.set_result(None)
    return future


def test_what_hinders_some_is_told_of_each_and_raised_once() -> None:
    board, fault = Board(), StackFileError([Fault("ems:experiment", "is missing")])
    running = {"a": ended(fault), "b": ended(), "c": ended(ProvenanceError("No commit.", "Commit."))}
    with pytest.raises(EmsError, match="2 of 3 stacks could not be brought up") as caught:
        together._results(running, board, manners.Signals())
    assert caught.value.exit_code == 3
    assert board.failed == {"a": "ems:experiment: is missing", "c": "No commit.\nCommit."}


def test_a_fault_of_ems_itself_is_raised_as_it_is() -> None:
    running = {"a": ended(ProvenanceError("x")), "b": ended(ZeroDivisionError())}
    with pytest.raises(ZeroDivisionError):
        together._results(running, Board(), manners.Signals())


def test_signals_end_the_wait_for_what_no_engine_works_at() -> None:
    signals = manners.Signals()
    signals.heard.append(2)
    with pytest.raises(KeyboardInterrupt):
        together._results({"a": Future()}, Board(), signals)


def test_who_was_interrupted_has_time_to_say_how_its_run_stands() -> None:
    signals, said = manners.Signals(), []
    signals.heard.append(2)

    def ending() -> None:
        time.sleep(0.5)
        said.append("interrupted")

    running = {"a": Threads().submit(ending)}
    with pytest.raises(KeyboardInterrupt):
        together._results(running, Board(), signals)
    assert said == ["interrupted"]


@pytest.mark.parametrize(
    "states, look",
    [
        ([State.FAILED] * 2, "ems status s0 s1"),
        ([State.FAILED, State.EXPIRED] * 3, "ems status --state expired --state failed"),
    ],
)
def test_of_several_that_did_not_succeed_it_is_said_how_to_see_all(states: list[State], look: str) -> None:
    ended = [
        replace(FINISHED, state=state, registration=replace(FINISHED.registration, stack=f"s{n}"))
        for n, state in enumerate(states)
    ]
    with pytest.raises(ExperimentFailed) as caught:
        lifecycle.raise_if_failed([*ended, FINISHED])
    assert caught.value.hint == f"See why: {look}; go on with: ems up --retry"
