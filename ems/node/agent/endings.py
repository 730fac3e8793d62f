"""How a run may end, and when."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ems.databases import Claim, Database, Outcome, State

GOES_ON = os.EX_TEMPFAIL  # exit code of an agent whose run is not over, as it was told to stop


def seconds_left(claim: Claim, database: Database) -> float:
    """From now to the deadline, both on the database's clock."""
    row = database.experiment(claim.experiment_id)
    if claim.deadline_at is None:
        return float("inf")
    now = row.heartbeat_at if row and row.heartbeat_at else datetime.now(UTC)
    return (claim.deadline_at - now).total_seconds()


def after(seconds: float, outcome: Outcome) -> Callable[[], Outcome | None]:
    """Says the outcome once so many seconds have passed."""
    due = time.monotonic() + seconds
    return lambda: outcome if time.monotonic() >= due else None


def failed(error: str, exit_code: int | None = None, log_tail: str = "") -> Outcome:
    """Of a run whose job failed, or that EMS could not go on with."""
    return Outcome(State.FAILED, 0, 1, exit_code=exit_code, error=error, log_tail=log_tail)


def stopped(state: State, error: str) -> Outcome:
    """Of a run that was ended before its job had."""
    return Outcome(state, 0, 0, error=error)
