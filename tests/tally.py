"""What became of each trial, a fault in the midst of a run: the table that `make drill` prints at its end.

A test is one trial unless it says otherwise by `tried`. It is stuck if it fails though no row is lost, doubled or
wrong: a run did not end, ended otherwise than it should have, or left something behind.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pytest

Row = tuple[Any, ...]


@dataclass
class Tally:
    """Counts of trials and of those that struck; of rows; of trials that are stuck."""

    trials: int = 0
    hit: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    stuck: int = 0

    def add(self, other: Tally) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class _Now:
    tally = Tally()  # of the test that runs


def tried(hit: bool = True) -> None:
    """Note one trial, and whether the fault found what it was to strike."""
    _Now.tally.trials += 1
    _Now.tally.hit += hit


def compare(found: Sequence[Row], expected: Sequence[Row], key: int) -> None:
    """Assert that the rows are the same, in this order, and count what is not.

    The first `key` values of a row say which one it is.
    """
    counts = Counter(row[:key] for row in found)
    values = {row[:key]: row for row in expected}
    _Now.tally.lost += len(values.keys() - counts.keys())
    _Now.tally.doubled += sum(count - 1 for count in counts.values())
    _Now.tally.wrong += sum(values.get(row[:key]) != row for row in found)
    assert found == expected


def concluded(passed: bool) -> Tally:
    """The counts of the test that has run."""
    tally = Tally(**asdict(_Now.tally))
    if not tally.trials:
        tally.trials, tally.hit = 1, int(passed)
    tally.stuck = int(not passed and not tally.lost + tally.doubled + tally.wrong)
    return tally


def table(tallies: Iterable[tuple[str, Tally]]) -> Iterator[str]:
    """Lines: a test function each, with the sum of its cases, and one with the sum of all."""
    sums: dict[str, Tally] = {}
    for name, tally in tallies:
        for line in (name, "all"):
            sums.setdefault(line, Tally()).add(tally)
    total = sums.pop("all", Tally())
    width = max(map(len, [*sums, "all"]))
    yield " ".join([" " * width, *(f"{field.name:>8}" for field in fields(Tally))])
    for name, tally in [*sorted(sums.items()), ("all", total)]:
        yield " ".join([f"{name:{width}}", *(f"{count:8,}" for count in asdict(tally).values())])


def pytest_runtest_setup() -> None:
    _Now.tally = Tally()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call" or report.failed:
        report.user_properties.append(("tally", asdict(concluded(report.passed))))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if "EMS_DRILL" in os.environ:
        terminalreporter.section("trials")
        terminalreporter.write_line("\n".join(table(_reported(terminalreporter.stats))))


def _reported(stats: dict[str, list[Any]]) -> Iterator[tuple[str, Tally]]:
    for report in [*stats.get("passed", []), *stats.get("failed", []), *stats.get("error", [])]:
        for name, counts in getattr(report, "user_properties", ()):  # which a module that fails to load has not
            if name == "tally":
                yield report.nodeid.partition("[")[0].removeprefix("tests/"), Tally(**counts)
