"""A sweep in a lab whose database is BigQuery, by its emulator, which is slower than the service."""

from __future__ import annotations

import json
import re
import time

from tests.end_to_end.test_bigquery import A_BEAT_S, analyst, rows, status
from tests.end_to_end.test_sweeps import POINTS, Sweeper

__all__ = ["analyst"]


def test_a_sweep_that_is_interrupted_stops_at_once_and_goes_on(analyst: Sweeper) -> None:
    """Beats are a minute apart; who runs on this machine is told to listen before the next one."""
    analyst.sweep()
    analyst.ems("up", "lab")
    wait = analyst.note("wait")
    command = analyst.start("up", "e")
    seen = re.compile(r"(2\d|30) of 60 points .* \1 rows")
    analyst.wait(lambda: seen.search(analyst.said(command)))
    began = time.monotonic()
    assert json.loads(analyst.ems("stop", "e", "--json").stdout)[0]["state"] == "cancelled"
    assert command.wait(A_BEAT_S) == 6, analyst.said(command)
    assert time.monotonic() - began < A_BEAT_S
    wait.unlink()
    analyst.ems("up", "e", "--retry")
    assert status(analyst) == ("succeeded", 2, 0)
    assert [(row["a"], row["x"], row["value"]) for row in rows(analyst)] == [(a, x, a + x / 7) for a, x in POINTS]
    assert sum(count == 1 for count in analyst.calls().values()) >= 20  # and were not computed again
