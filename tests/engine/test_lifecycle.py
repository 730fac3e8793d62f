"""What is said of an interrupted `ems up` is true whenever the run's cancellation comes."""

from __future__ import annotations

import pytest

from ems.databases import State
from ems.engine.lifecycle import _after_interrupt
from ems.lab import Lab
from tests.conftest import ran


@pytest.mark.parametrize("state", [None, State.CANCELLED, State.FAILED, State.SUCCEEDED])
def test_the_command_that_is_named_goes_on_also_with_what_is_cancelled_after_that(
    here: Lab, state: State | None
) -> None:
    said = _after_interrupt(here, "pi", ran(here, state=state).id)
    assert said.endswith("Go on with: ems up pi" + ("" if state is State.SUCCEEDED else " --retry"))
    assert ("which may still be cancelled: ems status pi" in said) is (state is None)


def test_without_a_row_nothing_has_begun(here: Lab) -> None:
    ran(here)
    assert _after_interrupt(here, "pi", "none") == "interrupted before anything was registered. Go on with: ems up pi"
