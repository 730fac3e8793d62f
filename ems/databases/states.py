"""How an experiment stands, read from its row and the clock: state, lease, deadline. Pure, for every database.

A row has the columns of `experiment`, those of its newest run (`RUN`, `run_state`; None before the first), and `now`,
the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from ems.databases import Experiment, Registration, State

Row = Mapping[Any, Any]  # the keys are names of columns
Values = dict[str, Any]

ELSEWHERE_S = 3e9
"""The lease, 95 years, of a run whose place holds the real one: a database far away says nothing of it by its clock."""
RUN = ("agent", "claimed_at", "heartbeat_at", "lease_until", "platform")
COMPUTED = frozenset({"registration", "state", "agent", "platform", "finished_at", "error", "took_s", "files_left"})
_REGISTERED = tuple(field.name for field in fields(Registration) if field.name != "attempt")
_AS_STORED = tuple(field.name for field in fields(Experiment) if field.name not in COMPUTED)


def effective(stored: State, lease_until: datetime | None, deadline_at: datetime | None, now: datetime) -> State:
    """The state as it stands: what nobody was left to write is read from the clock.

    The deadline is that of a run: of one that was lost before, the time until the next one begins does not count.
    A run that is kept elsewhere stands as it was last heard of: its place ends it in time, and tells so later.
    """
    if stored is not State.RUNNING or is_kept_elsewhere(lease_until, now):
        return stored
    if deadline_at is not None and deadline_at <= now and (lease_until is None or lease_until >= deadline_at):
        return State.EXPIRED
    return stored if alive(stored, lease_until, now) else State.LOST


def is_kept_elsewhere(lease_until: datetime | None, now: datetime) -> bool:
    """Whether the run's place holds its lease and its deadline, and this database only hears of them."""
    return lease_until is not None and lease_until - now > timedelta(seconds=ELSEWHERE_S / 2)


def alive(run_state: State | None, lease_until: datetime | None, now: datetime) -> bool:
    """Whether a run holds its experiment now."""
    return run_state is State.RUNNING and lease_until is not None and lease_until > now


def is_held(row: Row) -> bool:
    """Whether a run holds the experiment now."""
    return row["run_state"] is not None and alive(State(row["run_state"]), row["lease_until"], row["now"])


def deadline(max_hours: float | None, used_s: float, claimed_at: datetime) -> datetime | None:
    """`used_s`: what the runs before the one claimed at `claimed_at` took."""
    return None if max_hours is None else claimed_at + timedelta(hours=max_hours, seconds=-used_s)


def took_s(row: Row) -> float:
    """What the runs took, each from claim to last heartbeat: 0 before the first."""
    if row["claimed_at"] is None:
        return 0.0
    newest: timedelta = row["heartbeat_at"] - row["claimed_at"]
    return float(row["used_s"]) + max(newest.total_seconds(), 0.0)  # the clock may have been set back


def columns_of(registration: Registration) -> Values:
    """A registration by columns of `experiment`, where its `attempt` is `reviewed_attempt`."""
    values = asdict(registration)
    return values | {"reviewed_attempt": values.pop("attempt")}


def experiment_of(row: Row) -> Experiment:
    """The experiment as it stands at the row's `now`."""
    state = effective(State(row["state"]), row["lease_until"], row["deadline_at"], row["now"])
    overdue = state is State.EXPIRED and row["state"] != state  # so nobody wrote when and why
    registration = Registration(**{name: row[name] for name in _REGISTERED}, attempt=row["reviewed_attempt"])
    return Experiment(
        registration=registration,
        state=state,
        agent=row["agent"] or "",
        platform=row["platform"] or "",
        took_s=took_s(row),
        files_left=row["files_left"] or "",
        finished_at=row["finished_at"] or (row["deadline_at"] if overdue else None),
        error=row["error"] or (used_up_error(row["max_hours"], row["stack"]) if overdue else ""),
        **{name: row[name] for name in _AS_STORED},
    )


def used_up_error(max_hours: float | None, stack: str) -> str:
    """The error of an experiment whose deadline passed, with what to do."""
    return f"its max_hours, {max_hours:g}, are used up. Raise `limits: max_hours`, then: ems up {stack}"
