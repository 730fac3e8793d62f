"""When an experiment may do what: decided here once, for every database.

Each decision is a pure function from an experiment's row to a `Change`, or None where there is nothing to change. A
database reads the row (see `states`) so that nobody else can change it meanwhile, asks, and writes all of the change or
nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ems.base.errors import DatabaseError, FencedOut
from ems.databases import (
    RETRYABLE,
    Claim,
    Experiment,
    Orders,
    Outcome,
    Output,
    Project,
    Registration,
    Round,
    State,
    outputs,
    rounds,
)
from ems.databases.states import (
    RUN,
    Row,
    Values,
    columns_of,
    deadline,
    experiment_of,
    is_held,
    took_s,
    used_up_error,
)

FOLLOWS = frozenset({"commit", "stack_file_commit", "repository", "points_total"})
"""What a registration records and, alone, changes nothing: points grow with each round that is proposed."""
UNSET = ("deadline_at", "started_at", "finished_at", "destroyed_at", "run_state", *RUN)
COUNTERS = ("attempt", "points_done", "points_failed", "rows_stored", "machines")


@dataclass(frozen=True)
class Change:
    """What a decision writes, by column. `charge` is of the newest run; `new_run` becomes the newest one.

    `proposed` and `outputs`: rows of these tables, of which the latter may be there. `recharge`: what is new of the
    charge of the run with that `attempt`.
    """

    experiment: Values
    run: Values = field(default_factory=dict)
    new_run: Values = field(default_factory=dict)
    charge: Values = field(default_factory=dict)
    proposed: Sequence[Values] = ()
    outputs: Sequence[Values] = ()
    recharge: Values = field(default_factory=dict)


def newest_run(change: Change) -> Values:
    """What an experiment's row has of its newest run, as far as it changes."""
    run = change.new_run or change.run
    state = {"run_state": run["state"]} if "state" in run else {}
    return {name: run[name] for name in RUN if name in run} | state


def after(row: Row, change: Change) -> Values:
    """The row that the change leaves, at the same time."""
    return {**row, **change.experiment, **newest_run(change)}


# Experiments


def registered(wanted: Registration, now: datetime) -> Values:
    """The row of a new experiment."""
    return {
        **columns_of(wanted),
        **dict.fromkeys(UNSET),
        **dict.fromkeys(COUNTERS, 0),
        **{"state": State.REGISTERED, "wanted_attempt": 1, "cost_usd": 0.0, "cancel_requested": False},
        **{"registered_at": now, "now": now, "used_s": 0.0, "error": "", "log_tail": "", "files_left": ""},
    }


def registered_again(row: Row, wanted: Registration) -> Change:
    """What may change of a row that is there."""
    found = experiment_of(row)
    old = found.registration
    check_same_table(found, wanted)
    values = columns_of(wanted) | {"destroyed_at": None} | _as_computed(old, wanted)
    if found.attempt and not old.imported:  # of what ran elsewhere, the commit may become known later
        values |= {"commit": old.commit, "repository": old.repository}
    if row["run_state"] == State.RUNNING:  # also of a lapsed lease, as that run may come back: it stores by its claim
        values["results_table"] = old.results_table
    if reopened_by(found, wanted):
        is_piloted = found.state is State.PILOTED
        return Change(values | (_going_on() | {"cancel_requested": False} if is_piloted else _opened(row)))
    if wanted.max_hours != old.max_hours and _has_deadline(row):
        values["deadline_at"] = deadline(wanted.max_hours, row["used_s"], row["claimed_at"])
    return Change(values)


def _as_computed(old: Registration, wanted: Registration) -> Values:
    """The points stay as they were numbered and computed: an id may stand for grids that are recorded in two ways."""
    before, spec = json.loads(old.spec), json.loads(wanted.spec)
    kept = {key: value for key, value in before.get("job", {}).items() if key in ("sweep", "parameters", "exclude")}
    if not kept:
        return {"points_total": old.points_total} if rounds.is_proposing(old) else {}
    spec["job"].update(kept)
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {"spec": text, "points_total": old.points_total}


def reopened(row: Row) -> Change | None:
    """A failed, cancelled or expired experiment goes on."""
    return Change(_opened(row)) if experiment_of(row).state in RETRYABLE else None


def provisioning(row: Row, machines: int) -> Change | None:
    """A place is being made: only while no run holds the experiment and it is not finished."""
    if is_held(row) or experiment_of(row).state.finished:
        return None
    return Change({"state": State.PROVISIONING, "machines": machines})


def cancelled(row: Row) -> Change | None:
    """The run that holds the experiment is asked to stop; without one, the experiment is cancelled at once."""
    if experiment_of(row).state.finished:
        return None
    if is_held(row):
        return Change({"cancel_requested": True})
    return Change({"state": State.CANCELLED, "machines": 0, "finished_at": row["now"]}, _lost(row))


def destroyed(row: Row) -> Change | None:
    """The stack released the record, which stays; the first time counts."""
    return None if row["destroyed_at"] else Change({"destroyed_at": row["now"]})


def left(row: Row, files_left: str) -> Change | None:
    """What is left of the files that its jobs left."""
    return Change({"files_left": files_left}) if files_left != row["files_left"] else None


def reopened_by(found: Experiment, wanted: Registration) -> bool:
    """Whether registering `wanted` lets the finished experiment `found` go on.

    After a pilot that is what has more points: a larger pilot, or all.
    """
    if found.state is State.PILOTED:
        return wanted.pilot is None or wanted.pilot > (found.registration.pilot or 0)
    hours = found.registration.max_hours
    raised = hours is not None and (wanted.max_hours is None or wanted.max_hours > hours)
    again = wanted.attempt > max(found.attempt, found.wanted_attempt)
    if found.state is State.SUCCEEDED:
        return rounds.are_raised(found.registration, wanted)
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


def _has_deadline(row: Row) -> bool:
    """Whether hours count now: neither before a run, nor between a reopening and the run that is due."""
    is_due = row["wanted_attempt"] > row["attempt"] or row["run_state"] == State.PILOTED
    return not (State(row["state"]).finished or row["claimed_at"] is None or is_due)


def _opened(row: Row) -> Values:
    return {
        "state": State.REGISTERED,
        "wanted_attempt": row["attempt"] + 1,
        "cancel_requested": False,
        "deadline_at": None,
        "points_failed": 0,
        "finished_at": None,
        "error": "",
    }


def _going_on() -> Values:
    """After a pilot: points that failed in it are not due again."""
    return {"state": State.REGISTERED, "deadline_at": None, "finished_at": None, "error": ""}


# Runs


def claimed(row: Row, agent: str, lease_s: float) -> Change | None:
    """The next run begins, and the one before it is lost; None if finished, or if another agent's lease holds.

    No run begins, and the experiment expires, where `max_hours` are used up.
    """
    if experiment_of(row).state.finished or (is_held(row) and row["agent"] != agent):
        return None
    until = deadline(row["max_hours"], took_s(row), row["now"])
    if until is not None and until <= row["now"]:
        return Change(_used_up(row), _lost(row))
    return Change(_running(row, until), _lost(row), _new_run(row, agent, lease_s))


def _running(row: Row, until: datetime | None) -> Values:
    return {
        "state": State.RUNNING,
        "attempt": row["attempt"] + 1,
        "machines": 1,
        "used_s": took_s(row),
        "started_at": row["started_at"] or row["now"],
        "deadline_at": until,
        "error": "",
    }


def _new_run(row: Row, agent: str, lease_s: float) -> Values:
    now = row["now"]
    key = {"experiment_id": row["id"], "attempt": row["attempt"] + 1}
    lease = {"claimed_at": now, "heartbeat_at": now, "lease_until": now + timedelta(seconds=lease_s)}
    return {**key, "agent": agent, "state": State.RUNNING, **lease, "platform": "", "error": ""}


def _used_up(row: Row) -> Values:
    return {
        "state": State.EXPIRED,
        "machines": 0,
        "finished_at": row["now"],
        "error": used_up_error(row["max_hours"], row["stack"]),
    }


def _lost(row: Row) -> Values:
    """Of the newest run, when its experiment goes on or ends without it."""
    return {"state": State.LOST, "finished_at": row["now"]} if row["run_state"] == State.RUNNING else {}


def claim_of(row: Row) -> Claim:
    """The right of the newest run."""
    return Claim(row["id"], row["attempt"], row["results_table"], row["deadline_at"], row["cancel_requested"])


def beaten(row: Row, claim: Claim, lease_s: float, points_done: int, points_failed: int) -> Change:
    """The lease is renewed; FencedOut unless the claim holds."""
    check_fence(row, claim)
    lease = {"heartbeat_at": row["now"], "lease_until": row["now"] + timedelta(seconds=lease_s)}
    revived = {} if _is_reopened(row, claim) else {"state": State.RUNNING}
    return Change({"points_done": points_done, "points_failed": points_failed, **revived}, lease)


def orders(row: Row, claim: Claim) -> Orders:
    """What the run hears that beats now."""
    until = row["deadline_at"]
    expired = _is_reopened(row, claim) or (until is not None and until <= row["now"])
    return Orders(row["cancel_requested"], expired, until)


def proposed(row: Row, claim: Claim, wanted: Round, recorded: Round | None, before: Round | None) -> Change | None:
    """A round is recorded, unless one of its number is; FencedOut unless the claim holds. `before`: that before it."""
    check_fence(row, claim)
    if recorded:
        return None
    if wanted.number > 2 and (before is None or before.first_point + before.points != wanted.first_point):
        there = (
            f"the round before it has {before.points:,} from {before.first_point:,} on"
            if before
            else "none is before it"
        )
        raise DatabaseError(
            f"round {wanted.number} of experiment {row['id']} begins with point {wanted.first_point:,}, but {there}.",
            "This is a fault of EMS: report it, please.",
        )
    return Change({"points_total": row["points_total"] + wanted.points}, proposed=rounds.rows_of(row, claim, wanted))


def kept(row: Row, claim: Claim, found: Sequence[Output]) -> Change:
    """Files are recorded that the lab's store has; FencedOut unless the claim holds."""
    check_fence(row, claim)
    return Change({"state": row["state"]}, outputs=outputs.rows_of(claim, found))


def described(row: Row, claim: Claim, platform: str) -> Change:
    """On what the run runs is recorded; FencedOut unless the claim holds."""
    check_fence(row, claim)
    return Change({"state": row["state"]}, {"platform": platform})


def released(row: Row, claim: Claim, outcome: Outcome, was: State | None) -> Change | None:
    """The run ends and is charged, once; FencedOut unless the claim holds.

    `was`: how this run was released before, if it was: the same again changes nothing.
    """
    if not (outcome.state.finished or outcome.state is State.LOST):
        raise ValueError(f"a run cannot end as {outcome.state}")
    if was == outcome.state:
        return None
    check_fence(row, claim)
    ended = {"state": outcome.state, "heartbeat_at": row["now"], "finished_at": row["now"]}
    run = {**ended, "exit_code": outcome.exit_code, "error": outcome.error}
    return Change(_ended(row, claim, outcome), run, charge=_charge(row, outcome))


def _ended(row: Row, claim: Claim, outcome: Outcome) -> Values:
    values = {
        "points_done": outcome.points_done,
        "points_failed": outcome.points_failed,
        "cost_usd": row["cost_usd"] + outcome.cost_usd,
        "log_tail": outcome.log_tail,
        "files_left": outcome.files_left,
        "machines": 0,
    }
    if _is_reopened(row, claim):
        return values
    if outcome.state is State.PILOTED and _wants_more(row, outcome):  # since it looked last
        return values | _going_on()
    if outcome.state is State.LOST and experiment_of(row).state is State.EXPIRED:  # it stays over
        return values | _used_up(row)
    ended = {"state": outcome.state, "error": outcome.error}
    return values | ended | ({"finished_at": row["now"]} if outcome.state.finished else {})


def _wants_more(row: Row, outcome: Outcome) -> bool:
    wanted: int | None = row["pilot"]
    return wanted is None or wanted > outcome.points_done + outcome.points_failed


def _charge(row: Row, outcome: Outcome) -> Values:
    hours = max(row["now"] - row["claimed_at"], timedelta()) / timedelta(hours=1)
    key = {"experiment_id": row["id"], "attempt": row["attempt"]}
    cost = {"usd": outcome.cost_usd, "basis": outcome.cost_basis}
    return {**key, **cost, "funding": row["funding"], "hours": hours, "at": row["now"]}


def recharged(row: Row, attempt: int, was_usd: float | None, usd: float, basis: str) -> Change | None:
    """What a run cost that was charged `was_usd` is known better by now; None if it was not charged."""
    if was_usd is None:
        return None
    better = {"attempt": attempt, "usd": usd, "basis": basis}
    return Change({"cost_usd": row["cost_usd"] + usd - was_usd}, recharge=better)


def _is_reopened(row: Row, claim: Claim) -> bool:
    """Whether the next run is due already, though this one has not ended."""
    return bool(row["wanted_attempt"] > claim.attempt)


def check_fence(row: Row, claim: Claim) -> None:
    """FencedOut unless the claim holds."""
    if row["attempt"] < claim.attempt:
        problem = (
            f"the database does not know it, and was set back to run {row['attempt']}: what was stored since is lost"
        )
        raise FencedOut(f"run {claim.attempt} of experiment {row['id']} must stop: {problem}.", "Go on with: ems up")
    if row["attempt"] != claim.attempt:
        raise FencedOut(f"run {claim.attempt} of experiment {row['id']} must stop: run {row['attempt']} took over.")
    if row["run_state"] != State.RUNNING:
        raise FencedOut(f"run {claim.attempt} of experiment {row['id']} has ended: it is {row['state']}.")


# The lab's rows


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
    """A sentence with the ids there are, for the hint of an error."""
    return f"There are: {', '.join(known)}." if known else "There are none yet."
