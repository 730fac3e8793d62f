"""What all SQL services share: experiments and runs, in SQLAlchemy Core.

Every change reads the experiment's row under its lock, decides in Python (`rules`), and writes, in one transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, insert, select, update

from ems.databases import RETRYABLE, Claim, Experiment, Orders, Outcome, Registration, State, rules, tables
from ems.databases.sql_tables import SqlTables
from ems.databases.tables import charge, experiment, run
from ems.errors import DatabaseError


class SqlRuns(SqlTables):
    # Experiments

    def register(self, registration: Registration) -> Experiment:
        with self._writing() as connection:
            self._check_references(connection, registration)
            if not self._insert(connection, registration):
                row = self._row(connection, registration.id)
                self._update(connection, registration.id, **self._changes(connection, row, registration))
            return rules.experiment_of(self._row(connection, registration.id))

    def _check_references(self, connection: Connection, registration: Registration) -> None:
        """DatabaseError: a missing experimenter, project or funding, or a results table that EMS needs itself."""
        wanted = (registration.experimenter, registration.project, registration.funding)
        for table, id, known in self._missing(connection, *wanted):
            raise DatabaseError(f"no {table} {id!r} in the database.", f"{rules.choices(known)} Add it: ems up lab")
        tables.check_results_table(registration.results_table)

    def _insert(self, connection: Connection, registration: Registration) -> bool:
        """False if it is there: two that register a new one at once are told here, and by nothing before."""
        counters = dict.fromkeys(("attempt", "points_done", "points_failed", "rows_stored", "machines"), 0)
        values = {
            "state": State.REGISTERED,
            "wanted_attempt": 1,
            "cost_usd": 0.0,
            "cancel_requested": False,
            "registered_at": connection.execute(select(self.clock)).scalar_one(),
            "error": "",
            "log_tail": "",
        }
        return self._put_new(connection, experiment, rules.columns_of(registration) | counters | values)

    def _changes(self, connection: Connection, row: Any, registration: Registration) -> dict[str, Any]:
        used = self._used(connection, row["id"], before=row["attempt"])
        return rules.registered_again(row, registration, used)

    def _used(self, connection: Connection, experiment_id: str, before: int) -> timedelta:
        """What the runs before attempt `before` took, from claim to last heartbeat."""
        earlier = select(run).where(run.c.experiment_id == experiment_id, run.c.attempt < before)
        took = (row.heartbeat_at - row.claimed_at for row in connection.execute(earlier))
        return sum((max(each, timedelta()) for each in took), timedelta())  # the clock may have been set back

    def reopen(self, experiment_id: str) -> Experiment:
        with self._writing() as connection:
            found = rules.experiment_of(self._row(connection, experiment_id))
            if found.state in RETRYABLE:
                self._update(connection, experiment_id, **rules.reopened(found.attempt))
            return rules.experiment_of(self._row(connection, experiment_id))

    def experiment(self, experiment_id: str) -> Experiment | None:
        with self._reading() as connection:
            row = connection.execute(self._select().where(experiment.c.id == experiment_id)).mappings().one_or_none()
        return None if row is None else rules.experiment_of(row)

    def experiments(self, stack: str | None = None) -> list[Experiment]:
        released = experiment.c.destroyed_at.is_not(None)
        statement = self._select().order_by(released, experiment.c.registered_at.desc(), experiment.c.id)
        if stack is not None:
            statement = statement.where(experiment.c.stack == stack)
        with self._reading() as connection:
            return [rules.experiment_of(row) for row in connection.execute(statement).mappings()]

    def set_provisioning(self, experiment_id: str, machines: int) -> None:
        with self._writing() as connection:
            row = self._row(connection, experiment_id)
            if not rules.is_held(row) and not rules.experiment_of(row).state.finished:
                self._update(connection, experiment_id, state=State.PROVISIONING, machines=machines)

    def request_cancel(self, experiment_id: str) -> Experiment | None:
        with self._writing() as connection:
            row = self._find(connection, experiment_id)
            if row is None:
                return None
            if rules.experiment_of(row).state.finished:
                return rules.experiment_of(row)
            self._cancel(connection, row)
            return rules.experiment_of(self._row(connection, experiment_id))

    def _cancel(self, connection: Connection, row: Any) -> None:
        if rules.is_held(row):
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
            if rules.experiment_of(row).state.finished or (rules.is_held(row) and row["agent"] != agent):
                return None
            self._lose_run(connection, row)
            used = self._used(connection, experiment_id, before=row["attempt"] + 1)
            deadline = rules.deadline(row["max_hours"], used, row["now"])
            if deadline is not None and deadline <= row["now"]:
                self._expire(connection, row)
                return None
            return self._start(connection, row, agent, lease_s, deadline)

    def _expire(self, connection: Connection, row: Any) -> None:
        self._update(connection, row["id"], **rules.used_up(row))

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
                platform="",
            )
        )
        self._update(
            connection,
            row["id"],
            state=State.RUNNING,
            attempt=attempt,
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

    def describe(self, claim: Claim, platform: str) -> None:
        with self._writing() as connection:
            self._fenced(connection, claim)
            self._update_run(connection, claim, platform=platform)

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
            self._update(connection, claim.experiment_id, **rules.ended(row, claim, outcome))
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
                hours=max(row["now"] - row["claimed_at"], timedelta()) / timedelta(hours=1),
                usd=outcome.cost_usd,
                at=row["now"],
            )
        )

    # Rows

    def _select(self) -> Select[Any]:
        newest = and_(run.c.experiment_id == experiment.c.id, run.c.attempt == experiment.c.attempt)
        of_run = (run.c.agent, run.c.lease_until, run.c.claimed_at, run.c.heartbeat_at, run.c.platform)
        return select(experiment, run.c.state.label("run_state"), *of_run, self.clock.label("now")).outerjoin(
            run, newest
        )

    def _find(self, connection: Connection, experiment_id: str) -> Any:
        """The experiment's row with its newest run and the time, locked until the transaction ends; None if none."""
        self._lock(connection, experiment_id)
        statement = self._select().where(experiment.c.id == experiment_id)
        return connection.execute(statement).mappings().one_or_none()

    def _row(self, connection: Connection, experiment_id: str) -> Any:
        row = self._find(connection, experiment_id)
        if row is None:
            raise DatabaseError(f"no experiment {experiment_id!r} in {self._name}.", "See: ems status")
        return row

    def _fenced(self, connection: Connection, claim: Claim) -> Any:
        row = self._row(connection, claim.experiment_id)
        rules.check_fence(row, claim)
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
