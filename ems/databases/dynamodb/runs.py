"""Experiments and runs in DynamoDB."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import asdict
from datetime import datetime, timedelta

from ems.databases import RETRYABLE, Claim, Experiment, Orders, Outcome, Registration, State, rules, tables
from ems.databases.dynamodb.errors import Changed
from ems.databases.dynamodb.items import Item, item_of
from ems.databases.dynamodb.registry import EMPTY, RUN, Change, DynamodbRegistry, Row, collection_of
from ems.errors import DatabaseError

COUNTERS = ("attempt", "points_done", "points_failed", "rows_stored", "machines", "batches", "last_batch", "revision")
NEW: Row = {
    "state": State.REGISTERED,
    "wanted_attempt": 1,
    "cost_usd": 0.0,
    "used_s": 0.0,
    "cancel_requested": False,
    "error": "",
    "log_tail": "",
}
REUSE = ("tree", "environment_digest", "python", "job_digest")


class DynamodbRuns(DynamodbRegistry):
    @abstractmethod
    def _clean(self, row: Row) -> None:
        """Delete some of what does not count any more."""

    # Experiments

    def register(self, registration: Registration) -> Experiment:
        self._check_references(registration)
        if (new := self._insert(registration)) is not None:
            return rules.experiment_of(new)

        def decide(row: Row) -> Change:
            used = timedelta(seconds=row["used_s"])
            moved = any(row[name] != getattr(registration, name) for name in ("stack", *REUSE))
            lists = entries_of(asdict(registration)) if moved else []
            return Change(rules.registered_again(row, registration, used), lists)

        return rules.experiment_of(self._change(registration.id, decide)[0])

    def _check_references(self, registration: Registration) -> None:
        wanted = (registration.experimenter, registration.project, registration.funding)
        for table, id, known in self.missing(*wanted):
            raise DatabaseError(f"no {table} {id!r} in the database.", f"{rules.choices(known)} Add it: ems up lab")
        tables.check_results_table(registration.results_table)

    def _insert(self, registration: Registration) -> Row | None:
        """None if it is there."""
        now = self._service.clock.now()
        values = rules.columns_of(registration) | dict.fromkeys(COUNTERS, 0) | NEW | {"registered_at": now}
        key = {"pk": collection_of(registration.id), "sk": "experiment"}
        new = self._put(item_of(key | values), ConditionExpression="attribute_not_exists(pk)")
        try:
            self._transact([new, *map(self._put, entries_of(values))])
        except Changed:
            return None
        return EMPTY | values | {"now": now}

    def reopen(self, experiment_id: str) -> Experiment:
        def decide(row: Row) -> Change | None:
            found = rules.experiment_of(row)
            return Change(rules.reopened(found.attempt)) if found.state in RETRYABLE else None

        return rules.experiment_of(self._change(experiment_id, decide)[0])

    def experiment(self, experiment_id: str) -> Experiment | None:
        row = self._find(experiment_id)
        return None if row is None else rules.experiment_of(row)

    def experiments(self, stack: str | None = None) -> list[Experiment]:
        listed = self._collection("experiments", "" if stack is None else f"{stack}/")
        found = self._rows([entry["experiment_id"] for entry in listed])
        mine = (row for row in found if stack is None or row["stack"] == stack)
        return sorted(map(rules.experiment_of, mine), key=lambda each: (each.destroyed_at is not None, *_age(each)))

    def reusable(self, registration: Registration) -> list[Experiment]:
        if not registration.job_digest:
            return []
        listed = self._collection(f"job/{_reuse_digest(asdict(registration))}")
        others = {entry["experiment_id"] for entry in listed} - {registration.id}
        alike = (
            row
            for row in self._rows(others)
            if row["attempt"] > 0 and all(row[name] == getattr(registration, name) for name in REUSE)
        )
        return sorted(map(rules.experiment_of, alike), key=_age)

    def set_provisioning(self, experiment_id: str, machines: int) -> None:
        def decide(row: Row) -> Change | None:
            if rules.is_held(row) or rules.experiment_of(row).state.finished:
                return None
            return Change({"state": State.PROVISIONING, "machines": machines})

        self._change(experiment_id, decide)

    def request_cancel(self, experiment_id: str) -> Experiment | None:
        def decide(row: Row) -> Change | None:
            if rules.experiment_of(row).state.finished:
                return None
            if rules.is_held(row):
                return Change({"cancel_requested": True})
            ended = {"state": State.CANCELLED, "machines": 0, "finished_at": row["now"]}
            return Change(ended | _lost(row), _lost_run(row))

        if self._find(experiment_id) is None:
            return None
        return rules.experiment_of(self._change(experiment_id, decide)[0])

    def mark_destroyed(self, experiment_id: str) -> None:
        self._change(experiment_id, lambda row: Change({"destroyed_at": row["destroyed_at"] or row["now"]}))

    # Runs

    def claim(self, experiment_id: str, *, agent: str, lease_s: float) -> Claim | None:
        def decide(row: Row) -> Change | None:
            if rules.experiment_of(row).state.finished or (rules.is_held(row) and row["agent"] != agent):
                return None
            return _claimed(row, agent, lease_s)

        row, change = self._change(experiment_id, decide)
        if change is None or row["state"] != State.RUNNING:
            return None
        self._clean(row)
        return Claim(experiment_id, row["attempt"], row["results_table"], row["deadline_at"])

    def beat(self, claim: Claim, lease_s: float, points_done: int = 0, points_failed: int = 0) -> Orders:
        def decide(row: Row) -> Change:
            rules.check_fence(row, claim)
            lease = {"heartbeat_at": row["now"], "lease_until": row["now"] + timedelta(seconds=lease_s)}
            values = {"points_done": points_done, "points_failed": points_failed, **lease}
            reopened = row["wanted_attempt"] > claim.attempt
            return Change(values if reopened else values | {"state": State.RUNNING})

        row, _ = self._change(claim.experiment_id, decide)
        deadline = row["deadline_at"]
        expired = row["wanted_attempt"] > claim.attempt or (deadline is not None and deadline <= row["now"])
        return Orders(row["cancel_requested"], expired, deadline)

    def describe(self, claim: Claim, platform: str) -> None:
        def decide(row: Row) -> Change:
            rules.check_fence(row, claim)
            return Change({"platform": platform}, [_run(row | {"platform": platform})])

        self._change(claim.experiment_id, decide)

    def release(self, claim: Claim, outcome: Outcome) -> None:
        if not (outcome.state.finished or outcome.state is State.LOST):
            raise ValueError(f"a run cannot end as {outcome.state}")

        def decide(row: Row) -> Change:
            rules.check_fence(row, claim)
            ended = {"run_state": outcome.state, "heartbeat_at": row["now"]}
            return Change(rules.ended(row, claim, outcome) | ended, [_ended_run(row | ended, outcome)])

        if not self._is_released(claim, outcome):
            self._clean(self._change(claim.experiment_id, decide)[0])

    def _is_released(self, claim: Claim, outcome: Outcome) -> bool:
        item = self._checked.get(collection_of(claim.experiment_id), run_key(claim.attempt)) or {}
        return "usd" in item and item["state"]["S"] == outcome.state


def _age(found: Experiment) -> tuple[float, str]:
    """For sorting: newest first."""
    return -found.registered_at.timestamp(), found.id


def run_key(attempt: int) -> str:
    return f"run/{attempt:010d}"


def _reuse_digest(row: Row) -> str:
    return hashlib.sha256("\n".join(row[name] for name in REUSE).encode()).hexdigest()


def entries_of(row: Row) -> list[Item]:
    """In the lists of experiments."""
    entries = [("experiments", f"{row['stack']}/{row['id']}")]
    if row["job_digest"]:
        entries.append((f"job/{_reuse_digest(row)}", row["id"]))
    return [item_of({"pk": name, "sk": key, "experiment_id": row["id"]}) for name, key in entries]


# What a run does to its experiment's item


def _claimed(row: Row, agent: str, lease_s: float) -> Change:
    now, used_s = row["now"], row["used_s"] + _took_s(row)
    deadline = rules.deadline(row["max_hours"], timedelta(seconds=used_s), now)
    if deadline is not None and deadline <= now:
        return Change(rules.used_up(row) | _lost(row), _lost_run(row))
    run = {"agent": agent, "claimed_at": now, "heartbeat_at": now, "lease_until": now + timedelta(seconds=lease_s)}
    values = {
        **{"state": State.RUNNING, "attempt": row["attempt"] + 1, "machines": 1, "used_s": used_s, "error": ""},
        **{"started_at": row["started_at"] or now, "deadline_at": deadline, "cancel_requested": False},
        **{"run_state": State.RUNNING, "platform": "", **run, **_voided(row)},
    }
    return Change(values, [*_lost_run(row), _run(row | values)])


def _took_s(row: Row) -> float:
    """From claim to last heartbeat of the newest run."""
    took: timedelta = row["heartbeat_at"] - row["claimed_at"] if row["attempt"] else timedelta()
    return max(took.total_seconds(), 0.0)  # the clock may have been set back


def _voided(row: Row) -> Row:
    """No batch that an earlier run left unfinished will count."""
    unfinished = frozenset(range(row["last_batch"] + 1, row["batches"] + 1))
    names = ("void_batches", "unclean_batches")
    return {"last_batch": row["batches"]} | {name: row[name] | unfinished for name in names}


def _lost(row: Row) -> Row:
    return {"run_state": State.LOST} if row["run_state"] == State.RUNNING else {}


def _lost_run(row: Row) -> list[Item]:
    return [_run(row, state=State.LOST, finished_at=row["now"])] if row["run_state"] == State.RUNNING else []


def _ended_run(row: Row, outcome: Outcome) -> Item:
    hours = max(row["now"] - row["claimed_at"], timedelta()) / timedelta(hours=1)
    charge = {"funding": row["funding"], "hours": hours, "usd": outcome.cost_usd}
    ended = {"finished_at": row["now"], "exit_code": outcome.exit_code, "error": outcome.error}
    return _run(row, **charge, **ended)


def _run(row: Row, **values: str | float | datetime | None) -> Item:
    key = {"pk": collection_of(row["id"]), "sk": run_key(row["attempt"])}
    run = {"experiment_id": row["id"], "attempt": row["attempt"], "state": row["run_state"]}
    return item_of(key | run | {name: row[name] for name in RUN} | values)
