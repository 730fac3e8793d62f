"""What `ems status` draws, from rows made by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.databases import Experiment, State
from ems.databases.records import IMPORTED, UNKNOWN
from ems.views import status
from tests.databases.cases import REGISTRATION
from tests.views.drawing import FINISHED, drawn


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_status_row_is_whole_at_any_width(width: int) -> None:
    long = replace(REGISTRATION, stack="a-very-long-name-of-a-stack-indeed", points_total=100_000_000, project="p" * 40)
    running = {"points_done": 12_345_678, "points_failed": 12, "attempt": 3, "machines": 120}
    busy = replace(FINISHED, registration=long, state=State.PROVISIONING, **running)
    shown = drawn(status.status_table([busy, FINISHED], width), width)
    assert all(len(line) <= width for line in shown.splitlines())
    for part in ("12,345,678/100,000,000", "provisioning", "8/8", "a-very-long", "digits"):
        assert part in shown
    assert "…" not in shown
    assert ("$1,234.50" in shown) is (width == 120)


def test_status_leaves_out_what_says_nothing() -> None:
    one = replace(FINISHED, registration=replace(REGISTRATION, points_total=1), cost_usd=0.0)

    def columns(*experiments: Experiment) -> list[str]:
        return drawn(status.status_table(experiments, 120), 120).splitlines()[1].split()

    assert columns(one) == ["stack", "state", "rows", "changed", "took", "cluster", "project"]
    sweep = replace(one, registration=replace(REGISTRATION, points_total=9), points_failed=1)
    assert columns(replace(one, points_failed=1), replace(sweep, attempt=2, machines=1, cost_usd=0.1)) == [
        *[
            "stack",
            "state",
            "points",
            "failed",
            "rows",
            "attempt",
            "changed",
            "took",
            "cluster",
            "machines",
            "cost",
            "project",
        ]
    ]


def test_errors_stand_below_the_table_as_they_are() -> None:
    failed = replace(FINISHED, state=State.FAILED, error="[bold]KeyError[/]: 'x'")
    assert drawn(status.status_page([failed], 80)).splitlines()[-2:] == [
        "digits: [bold]KeyError[/]: 'x'",
        "See `ems logs digits`; go on with `ems up digits --retry`.",
    ]
    some = replace(FINISHED, state=State.EXPIRED, points_failed=1)
    assert drawn(status.status_page([some], 80)).splitlines()[-1] == "See `ems failures digits`."
    assert drawn(status.status_page([some], 80, waits="It waits.")).splitlines()[-1] == "It waits."


def test_several_are_summed_up_with_the_first_line_of_each_error() -> None:
    failed = replace(FINISHED, state=State.FAILED, error="no memory\nat line 3")
    lines = drawn(status.status_page([failed, FINISHED, FINISHED], 80, total=9, declaring=["digits"])).splitlines()
    assert lines[-3:] == [
        "digits: no memory",
        "3 experiments: 1 failed · 2 succeeded · 6 older not shown: --limit 9",
        "Clusters that ended runs still declare: digits. Release: ems teardown digits",
    ]


def test_what_was_imported_is_summed_up_as_such() -> None:
    row = replace(FINISHED.registration, cluster=IMPORTED, environment_digest=UNKNOWN)
    lines = drawn(status.status_page([replace(FINISHED, registration=row), FINISHED], 80)).splitlines()
    assert lines[-1] == "2 experiments: 1 imported · 1 succeeded"


@given(st.text("ab-_.", min_size=1), st.integers(1, 12))
def test_a_name_is_folded_where_a_word_of_it_ends(name: str, width: int) -> None:
    lines = list(status.folded(name, width))
    assert "".join(lines) == name and all(lines)
    assert all(len(line) <= width or not re.search("[-_.]", line[:-1]) for line in lines)
    assert all(line[-1] in "-_." for line in lines[:-1])
