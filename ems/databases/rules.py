"""When an experiment may do what: the same rules for every database. Pure; `now` is the database's clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from ems.databases import RETRYABLE, Claim, Experiment, Outcome, Project, Registration, State
from ems.errors import DatabaseError, FencedOut

COMPUTED = frozenset({"registration", "state", "agent", "platform", "finished_at", "error"})


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


def check_same_table(found: Experiment, wanted: Registration) -> None:
    """DatabaseError if `found` has rows in another results table than `wanted` names."""
    old = found.registration.results_table
    if found.rows_stored and old != wanted.results_table:
        raise DatabaseError(
            f"experiment {found.id} has {found.rows_stored} rows in results table {old!r}, "
            f"so they cannot go to {wanted.results_table!r}.",
            f"Set back `results: {{table: {old}}}` in the stack file of {wanted.stack}.",
        )


def check_parent(project: Project, parents: Mapping[str, str | None]) -> None:
    """DatabaseError unless the project's parent exists and does not lie below it; `parents`: of all projects there."""
    above = project.parent
    if above is not None and above != project.id and above not in parents:
        raise DatabaseError(f"project {project.id!r}: no parent {above!r} in the database.", choices(sorted(parents)))
    while above is not None:
        if above == project.id:
            raise DatabaseError(
                f"project {project.id!r} cannot lie below {project.parent!r}: that lies below {project.id!r} itself.",
                "Projects are a tree: give it another parent, or none.",
            )
        above = parents[above]


def choices(known: Sequence[str]) -> str:
    return f"There are: {', '.join(known)}." if known else "There are none yet."


# Rows: what a database keeps of an experiment and its newest run, with the time `now`


def check_fence(row: Any, claim: Claim) -> None:
    """FencedOut unless the claim holds."""
    if row["attempt"] != claim.attempt:
        raise FencedOut(f"run {claim.attempt} of experiment {row['id']} must stop: run {row['attempt']} took over.")
    if row["run_state"] != State.RUNNING:
        raise FencedOut(f"run {claim.attempt} of experiment {row['id']} has ended: it is {row['state']}.")


def used_up(row: Any) -> dict[str, Any]:
    return {"state": State.EXPIRED, "machines": 0, "finished_at": row["now"], "error": _used_up_error(row)}


def _used_up_error(row: Any) -> str:
    return f"its max_hours, {row['max_hours']:g}, are used up. Raise `limits: max_hours`, then: ems up {row['stack']}"


def columns_of(registration: Registration) -> dict[str, Any]:
    values = asdict(registration)
    return values | {"reviewed_attempt": values.pop("attempt")}


def registered_again(row: Any, wanted: Registration, used: timedelta) -> dict[str, Any]:
    """What becomes of a row that is there; `used`: what its runs before the newest took."""
    found = experiment_of(row)
    old = found.registration
    check_same_table(found, wanted)
    values = columns_of(wanted) | {"destroyed_at": None}
    if found.attempt:
        values |= {"commit": old.commit, "repository": old.repository}
    if reopened_by(found, wanted):
        return values | reopened(found.attempt)
    if wanted.max_hours != old.max_hours and not State(row["state"]).finished and row["claimed_at"]:
        values["deadline_at"] = deadline(wanted.max_hours, used, row["claimed_at"])
    return values


def reopened(attempt: int) -> dict[str, Any]:
    return {
        "state": State.REGISTERED,
        "wanted_attempt": attempt + 1,
        "cancel_requested": False,
        "deadline_at": None,
        "points_failed": 0,
        "finished_at": None,
        "error": "",
    }


def ended(row: Any, claim: Claim, outcome: Outcome) -> dict[str, Any]:
    values = {
        "points_done": outcome.points_done,
        "points_failed": outcome.points_failed,
        "cost_usd": row["cost_usd"] + outcome.cost_usd,
        "log_tail": outcome.log_tail,
        "machines": 0,
    }
    if row["wanted_attempt"] > claim.attempt:  # reopened in the meantime: the next run is due
        return values
    ended = {"state": outcome.state, "error": outcome.error}
    return values | ended | ({"finished_at": row["now"]} if outcome.state.finished else {})


def is_held(row: Any) -> bool:
    return row["run_state"] is not None and alive(State(row["run_state"]), row["lease_until"], row["now"])


def experiment_of(row: Any) -> Experiment:
    state = effective(State(row["state"]), row["lease_until"], row["deadline_at"], row["now"])
    overdue = state is State.EXPIRED and row["state"] != state  # so nobody wrote when and why
    names = {field.name for field in fields(Registration)} - {"attempt"}
    registration = Registration(**{name: row[name] for name in names}, attempt=row["reviewed_attempt"])
    return Experiment(
        registration=registration,
        state=state,
        agent=row["agent"] or "",
        platform=row["platform"] or "",
        finished_at=row["finished_at"] or (row["deadline_at"] if overdue else None),
        error=row["error"] or (_used_up_error(row) if overdue else ""),
        **{field.name: row[field.name] for field in fields(Experiment) if field.name not in COMPUTED},
    )
