"""When an experiment may do what: the same rules for every database. Pure; `now` is the database's clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from ems.databases import RETRYABLE, Experiment, Registration, State


def effective(stored: State, lease_until: datetime | None, deadline_at: datetime | None, now: datetime) -> State:
    """The state as it stands: what nobody was left to write is read from the clock."""
    if stored.finished:
        return stored
    if deadline_at is not None and deadline_at <= now:
        return State.EXPIRED
    if stored is State.RUNNING and not alive(stored, lease_until, now):
        return State.LOST
    return stored


def alive(run_state: State | None, lease_until: datetime | None, now: datetime) -> bool:
    """Whether a run holds its experiment now."""
    return run_state is State.RUNNING and lease_until is not None and lease_until > now


def deadline(max_hours: float | None, used: timedelta, claimed_at: datetime) -> datetime | None:
    """`used`: what the runs before the one claimed at `claimed_at` took."""
    return None if max_hours is None else claimed_at + timedelta(hours=max_hours) - used


def reopened_by(found: Experiment, wanted: Registration) -> bool:
    """Whether registering `wanted` lets the finished experiment `found` go on."""
    hours = found.registration.max_hours
    raised = hours is not None and (wanted.max_hours is None or wanted.max_hours > hours)
    again = wanted.attempt > max(found.attempt, found.wanted_attempt)
    return found.state in RETRYABLE and (again or (found.state is State.EXPIRED and raised))
