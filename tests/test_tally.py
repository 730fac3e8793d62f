"""The drill's own counting."""

from __future__ import annotations

import pytest

from tests import tally

EXPECTED = [(i, i / 3) for i in range(5)]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(tally._Now, "tally", tally.Tally())


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        (EXPECTED[1:], (1, 0, 0, 0)),
        ([*EXPECTED, EXPECTED[2]], (0, 1, 0, 0)),
        ([*EXPECTED[:4], (4, 0.5)], (0, 0, 1, 0)),
        ([*EXPECTED[:4], (7, 0.5), (7, 0.5)], (1, 1, 2, 0)),
        (EXPECTED[::-1], (0, 0, 0, 1)),
    ],
)
def test_rows_that_are_not_as_expected_are_counted(found, counts):
    with pytest.raises(AssertionError):
        tally.compare(found, EXPECTED, key=1)
    done = tally.concluded(passed=False)
    assert (done.lost, done.doubled, done.wrong, done.stuck) == counts


def test_a_test_is_a_trial_unless_it_says_more():
    tally.compare(EXPECTED, EXPECTED, key=1)
    assert tally.concluded(passed=True) == tally.Tally(trials=1, hit=1)
    assert tally.concluded(passed=False) == tally.Tally(trials=1, stuck=1)
    tally.tried()
    tally.tried(hit=False)
    assert tally.concluded(passed=True) == tally.Tally(trials=2, hit=1)


def test_the_table_has_the_sums():
    lines = list(tally.table([("b", tally.Tally(2, 1)), ("a", tally.Tally(1, 1, lost=3)), ("b", tally.Tally(1, 1))]))
    assert lines[0].split() == ["trials", "hit", "lost", "doubled", "wrong", "stuck"]
    assert [line.split() for line in lines[1:]] == [
        ["a", *["1", "1", "3", "0", "0", "0"]],
        ["b", *["3", "2", "0", "0", "0", "0"]],
        ["all", *["4", "3", "3", "0", "0", "0"]],
    ]
