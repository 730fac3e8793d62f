"""How messages speak of what a program said."""

from __future__ import annotations

import pytest

from ems.base.messages import raised


@pytest.mark.parametrize(
    "text, line",
    [
        ("begin\nError in f(x) : \n  a long one\nCalls: g -> f\nExecution halted\n", "Error in f(x) : a long one"),
        ("Error in library(a) : no package\nExecution halted\n", "Error in library(a) : no package"),
        ("Error: short\nExecution halted", "Error: short"),
        ("error: 'x' undefined\nerror: called from\n    t at line 2 column 3\n", "error: 'x' undefined"),
        ("error: 'x' undefined", "error: 'x' undefined"),
        ("error: 0.1\ncould not open a.dat", "could not open a.dat"),
        ("Execution halted", "Execution halted"),
        ("no traceback\nthe last line\n\n", "the last line"),
        ("", ""),
    ],
)
def test_the_line_that_says_what_went_wrong(text: str, line: str) -> None:
    assert raised(text) == line
