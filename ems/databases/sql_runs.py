"""What all SQL services share: experiments and runs, in SQLAlchemy Core.

Every change reads the experiment's row under its lock, decides in Python (`rules`), and writes, in one transaction.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, insert, select, update

from ems.databases import RETRYABLE, Claim, Experiment, Orders, Outcome, Registration, State, rules, tables
from ems.databases.schema import SqlTables, choices
from ems.databases.tables import charge, experiment, run
from ems.errors import DatabaseError, FencedOut

COMPUTED = frozenset({"registration", "state", "agent", "finished_at"})


class SqlRuns(SqlTables):
    # Experiments

    def register(self, registration: Registration) -> Experiment:
        with self._writing() as connection:
            self._check_references(connection, registration)
            row = self._find(connection, registration.id)
            if row is None:
                self._insert(connection, registration)
            else:
                self._update(connection, registration.id, **self._changes(connection, row, registration))
            return experiment_of(self._row(connection, registration.id))

    def _check_references(self, connection: Connection, registration: Registration) -> None:
        """DatabaseError: a missing experimenter, project or funding, or a results table that EMS needs itself."""
        wanted = (registration.experimenter, registration.project, registration.funding)
        for table, id, known in self._missing(connection, *wanted):
            raise DatabaseError(f"no {table} {id!r} in the database.", f"{choices(known)} Add it: ems up lab")
        name = registration.results_table.lower()
        if name in tables.metadata.tables or name.startswith(("sqlite_", "pg_")):
            raise DatabaseError(
                f"results table {registration.results_table!r} is a name that the database or EMS keeps for itself.",
                f"Any but {', '.join(sorted(tables.metadata.tables))}, sqlite_… and pg_…",
            )

    def _insert(self, connection: Connection, registration: Registration) -> None:
        counters = dict.fromkeys(("attempt", "points_done", "points_failed", "rows_stored", "machines"), 0)
        values = _columns(registration) | counters
        connection.execute(
            insert(experiment).values(
                **values,
                state=State.REGISTERED,
                wanted_attempt=1,
                cost_usd=0.0,
                cancel_requested=False,
                registered_at=connection.execute(select(self.clock)).scalar_one(),
                error="",
                log_tail="",
            )
        )

    def _changes(self, connection: Connection, row: Any, registration: Registration) -> dict[str, Any]:
        found = experiment_of(row)
        old = found.registration
        if found.rows_stored and old.results_table != registration.results_table:
            raise DatabaseError(
                f"experiment {found.id} has {found.rows_stored} rows in results table {old.results_table!r}, "
                f"so they cannot go to {registration.results_table!r}.",
                f"Set back `results: {{table: {old.results_table}}}` in the stack file of {registration.stack}.",
            )
        values = _columns(registration) | {"destroyed_at": None}
        if found.attempt:
            values |= {"commit": old.commit, "repository": old.repository}
        if rules.reopened_by(found, registration):
            return values | _reopened(found.attempt)
        if registration.max_hours != old.max_hours and not State(row["state"]).finished and row["claimed_at"]:
            used = self._used(connection, found.id, before=found.attempt)
            values["deadline_at"] = rules.deadline(registration.max_hours, used, row["claimed_at"])
        return values

    def _used(self, connection: Connection, experiment_id: str, before: int) -> timedelta:
        """What the runs before attempt `before` took, from claim to last heartbeat."""
        earlier = select(run).where(run.c.experiment_id == experiment_id, run.c.attempt < before)
        return sum((row.heartbeat_at - row.claimed_at for row in connection.execute(earlier)), timedelta())

    def reopen(self, experiment_id: str) -> Experiment:
        with self._writing() as connection:
            found = experiment_of(self._row(connection, experiment_id))
            if found.state in RETRYABLE:
                self._update(connection, experiment_id, **_reopened(found.attempt))
            return experiment_of(self._row(connection, experiment_id))

    def experiment(self, experiment_id: str) -> Experiment | None:
        with self._reading() as connection:
            row = connection.execute(self._select().where(experiment.c.id == experiment_id)).mappings().one_or_none()
        return None if row is None else experiment_of(row)

    def experiments(self, stack: str | None = None) -> list[Experiment]:
        let_go = experiment.c.destroyed_at.is_not(None)
        statement = self._select().order_by(let_go, experiment.c.registered_at.desc(), experiment.c.id)
        if stack is not None:
            statement = statement.where(experiment.c.stack == stack)
        with self._reading() as connection:
            return [experiment_of(row) for row in connection.execute(statement).mappings()]

    def set_provisioning(self, experiment_id: str, machines: int) -> None:
        with self._writing() as connection:
            row = self._row(connection, experiment_id)
            if not _is_held(row) and not experiment_of(row).state.finished:
                self._update(connection, experiment_id, state=State.PROVISIONING, machines=machines)

    def request_cancel(self, experiment_id: str) -> Experiment | None:
        with self._writing() as connection:
            row = self._find(connection, experiment_id)
            if row is None:
                return None
            if experiment_of(row).state.finished:
                return experiment_of(row)
            self._cancel(connection, row)
            return experiment_of(self._row(connection, experiment_id))

    def _cancel(self, connection: Connection, row: Any) -> None:
        if _is_held(row):
            self._update(connection, row["id"], cancel_requested=True)
            return
        self._lose_run(connection, row)
        self._update(connection, row["id"], state=State.CANCELLED, machines=0, finished_at=row["now"])

    def mark_destroyed(self, experiment_id: str) -> None:
        with self._writing() as connection:
            row = self._row(connection, experiment_id)
            self._update(connection, experiment_id, destroyed_at=row["destroyed_at"] or row["now"])

    # Runs

    def claim(self, experiment_id: str, *, agent: str, lease_s: float) -> Claim | None:
        with self._writing() as connection:
            row = self._row(connection, experiment_id)
            if experiment_of(row).state.finished or (_is_held(row) and row["agent"] != agent):
                return None
            self._lose_run(connection, row)
            used = self._used(connection, experiment_id, before=row["attempt"] + 1)
            deadline = rules.deadline(row["max_hours"], used, row["now"])
            if deadline is not None and deadline <= row["now"]:
                self._expire(connection, row)
                return None
            return self._start(connection, row, agent, lease_s, deadline)

    def _expire(self, connection: Connection, row: Any) -> None:
        error = (
            f"its max_hours, {row['max_hours']:g}, are used up. Raise `limits: max_hours`, then: ems up {row['stack']}"
        )
        self._update(connection, row["id"], state=State.EXPIRED, machines=0, finished_at=row["now"], error=error)

    def _start(self, connection: Connection, row: Any, agent: str, lease_s: float, deadline: datetime | None) -> Claim:
        attempt, now = row["attempt"] + 1, row["now"]
        connection.execute(
            insert(run).values(
                experiment_id=row["id"],
                attempt=attempt,
                agent=agent,
                state=State.RUNNING,
                claimed_at=now,
                heartbeat_at=now,
                lease_until=now + timedelta(seconds=lease_s),
                error="",
            )
        )
        self._update(
            connection,
            row["id"],
            state=State.RUNNING,
            attempt=attempt,
            wanted_attempt=max(row["wanted_attempt"], attempt),
            machines=1,
            started_at=row["started_at"] or now,
            deadline_at=deadline,
            cancel_requested=False,
            error="",
        )
        return Claim(row["id"], attempt, row["results_table"], deadline)

    def beat(self, claim: Claim, lease_s: float, points_done: int = 0, points_failed: int = 0) -> Orders:
        with self._writing() as connection:
            row = self._fenced(connection, claim)
            now, deadline = row["now"], row["deadline_at"]
            self._update_run(connection, claim, heartbeat_at=now, lease_until=now + timedelta(seconds=lease_s))
            values = {"points_done": points_done, "points_failed": points_failed}
            reopened = row["wanted_attempt"] > claim.attempt
            self._update(connection, claim.experiment_id, **values, **({} if reopened else {"state": State.RUNNING}))
            expired = reopened or (deadline is not None and deadline <= now)
            return Orders(row["cancel_requested"], expired, deadline)

    def release(self, claim: Claim, outcome: Outcome) -> None:
        if not (outcome.state.finished or outcome.state is State.LOST):
            raise ValueError(f"a run cannot end as {outcome.state}")
        with self._writing() as connection:
            if self._is_released(connection, claim, outcome):
                return
            row = self._fenced(connection, claim)
            now = row["now"]
            self._update_run(
                connection,
                claim,
                state=outcome.state,
                heartbeat_at=now,
                finished_at=now,
                exit_code=outcome.exit_code,
                error=outcome.error,
            )
            self._update(connection, claim.experiment_id, **_ended(row, claim, outcome))
            self._charge(connection, row, outcome)

    def _is_released(self, connection: Connection, claim: Claim, outcome: Outcome) -> bool:
        key = run.c.experiment_id == claim.experiment_id, run.c.attempt == claim.attempt
        charged = charge.c.experiment_id == claim.experiment_id, charge.c.attempt == claim.attempt
        states = select(run.c.state).where(*key, select(charge.c.attempt).where(*charged).exists())
        return connection.execute(states).scalar_one_or_none() == outcome.state

    def _charge(self, connection: Connection, row: Any, outcome: Outcome) -> None:
        connection.execute(
            insert(charge).values(
                experiment_id=row["id"],
                attempt=row["attempt"],
                funding=row["funding"],
                hours=(row["now"] - row["claimed_at"]) / timedelta(hours=1),
                usd=outcome.cost_usd,
                at=row["now"],
            )
        )

    # Rows

    def _select(self) -> Select[Any]:
        newest = and_(run.c.experiment_id == experiment.c.id, run.c.attempt == experiment.c.attempt)
        of_run = (run.c.agent, run.c.lease_until, run.c.claimed_at, run.c.heartbeat_at)
        return select(experiment, run.c.state.label("run_state"), *of_run, self.clock.label("now")).outerjoin(
            run, newest
        )

    def _find(self, connection: Connection, experiment_id: str) -> Any:
        """The experiment's row with its newest run and the time, locked until the transaction ends; None if none."""
        statement = self._select().where(experiment.c.id == experiment_id).with_for_update(of=experiment)
        return connection.execute(statement).mappings().one_or_none()

    def _row(self, connection: Connection, experiment_id: str) -> Any:
        row = self._find(connection, experiment_id)
        if row is None:
            raise DatabaseError(f"no experiment {experiment_id!r} in {self._name}.", "See: ems status")
        return row

    def _fenced(self, connection: Connection, claim: Claim) -> Any:
        row = self._row(connection, claim.experiment_id)
        if row["attempt"] != claim.attempt:
            raise FencedOut(f"run {claim.attempt} of experiment {row['id']} must stop: run {row['attempt']} took over.")
        if row["run_state"] != State.RUNNING:
            raise FencedOut(f"run {claim.attempt} of experiment {row['id']} has ended: it is {row['state']}.")
        return row

    def _lose_run(self, connection: Connection, row: Any) -> None:
        still = run.c.attempt == row["attempt"], run.c.state == State.RUNNING
        connection.execute(
            update(run).where(run.c.experiment_id == row["id"], *still).values(state=State.LOST, finished_at=row["now"])
        )

    def _update(self, connection: Connection, experiment_id: str, **values: Any) -> None:
        connection.execute(update(experiment).where(experiment.c.id == experiment_id).values(**values))

    def _update_run(self, connection: Connection, claim: Claim, **values: Any) -> None:
        key = run.c.experiment_id == claim.experiment_id, run.c.attempt == claim.attempt
        connection.execute(update(run).where(*key).values(**values))


def _columns(registration: Registration) -> dict[str, Any]:
    values = asdict(registration)
    return values | {"reviewed_attempt": values.pop("attempt")}


def _reopened(attempt: int) -> dict[str, Any]:
    return {
        "state": State.REGISTERED,
        "wanted_attempt": attempt + 1,
        "cancel_requested": False,
        "deadline_at": None,
        "points_failed": 0,
        "finished_at": None,
        "error": "",
    }


def _ended(row: Any, claim: Claim, outcome: Outcome) -> dict[str, Any]:
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


def _is_held(row: Any) -> bool:
    return row["run_state"] is not None and rules.alive(State(row["run_state"]), row["lease_until"], row["now"])


def experiment_of(row: Any) -> Experiment:
    state = rules.effective(State(row["state"]), row["lease_until"], row["deadline_at"], row["now"])
    names = {field.name for field in fields(Registration)} - {"attempt"}
    registration = Registration(**{name: row[name] for name in names}, attempt=row["reviewed_attempt"])
    return Experiment(
        registration=registration,
        state=state,
        agent=row["agent"] or "",
        finished_at=row["finished_at"] or (row["deadline_at"] if state is State.EXPIRED else None),
        **{field.name: row[field.name] for field in fields(Experiment) if field.name not in COMPUTED},
    )
