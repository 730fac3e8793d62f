"""Failed points by their errors."""

from __future__ import annotations

import pytest

from ems.spool import failures
from ems.spool.batch import Mark


def test_errors_that_all_differ_are_counted_in_flat_memory() -> None:
    kinds = 2 * failures.MOST_GROUPS
    words = (f"{'a' * (n // 40)}b{'c' * (n % 40)}" for n in range(kinds))
    groups = failures.grouped(Mark(n, "failed", {}, word) for n, word in enumerate(words))
    assert len(groups) == failures.MOST_GROUPS + 1 and sum(group.count for group in groups) == kinds
    assert groups[0].error == "other errors"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    raise E\nValueError: no\ngood',
            "ValueError: no",
        ),
        ("Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nKeyError: 'x'", "KeyError: 'x'"),
        ("killed: exit code 7", "killed: exit code 7"),
        ("two columns differ by case\nRename one", "two columns differ by case"),
        ("", ""),
    ],
)
def test_the_line_of_an_error_that_says_what_was_raised(error: str, line: str) -> None:
    assert failures.reason(Mark(1, "failed", {}, error)) == line
