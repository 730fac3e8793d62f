"""What all SQL services share: the rows of experiments with their newest run, in SQLAlchemy Core.

Every change reads the row under its lock, decides in Python (`rules`), and writes, in one transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, and_, bindparam, func, literal_column, select

from ems.base.errors import DatabaseError
from ems.databases import LONG, Long, Registration, Round, State, rules
from ems.databases.rounds import rounds_of
from ems.databases.rules import Change
from ems.databases.runs import Decide, Found, Rows
from ems.databases.sql_backend import SqlBackend
from ems.databases.states import RUN, Row, Values
from ems.databases.tables import charge, experiment, proposed, run

ORDER = (experiment.c.destroyed_at.is_not(None), experiment.c.registered_at.desc(), experiment.c.id)


class SqlRows(Rows):
    """The rows of experiments in the tables `experiment` and `run`."""

    def __init__(self, backend: SqlBackend) -> None:
        self._backend = backend

    def find(self, experiment_id: str) -> Row | None:
        with self._backend.reading() as connection:
            return self._found(connection, experiment_id)

    def insert(self, registration: Registration) -> Row | None:
        with self._backend.writing() as connection:
            row = rules.registered(registration, connection.execute(select(self._backend.clock)).scalar_one())
            values = {column.name: row[column.name] for column in experiment.columns}
            return row if self._backend.put_new(connection, experiment, values) else None

    def change(self, experiment_id: str, decide: Decide) -> tuple[Values, Change | None]:
        with self._backend.writing() as connection:
            row = self.row(connection, experiment_id)
            change = decide(
                Found(
                    row,
                    released_as=lambda attempt: _released_as(connection, row, attempt),
                    charged=lambda attempt: _charged(connection, row, attempt),
                    round=lambda number: next(iter(self.rounds(connection, experiment_id, number)), None),
                )
            )
            if change is None:
                return dict(row), None
            self._backend.write(connection, row, change)
        return rules.after(row, change), change

    # In a transaction

    def rounds(self, connection: Connection, experiment_id: str, number: int | None = None) -> list[Round]:
        """The rounds that were proposed, or the one of this number."""
        mine = select(proposed).where(proposed.c.experiment_id == experiment_id)
        wanted = mine if number is None else mine.where(proposed.c.round == number)
        return rounds_of(connection.execute(wanted.order_by(proposed.c.round, proposed.c.part)).mappings())

    def select(self, also: Collection[Long]) -> Select[Any]:
        """A query of all experiments with their newest runs and the time, to be narrowed and ordered.

        Of what is long, it reads what `also` names, and "" for the rest.
        """
        newest = and_(run.c.experiment_id == experiment.c.id, run.c.attempt == experiment.c.attempt)
        columns = (*experiment.c, *(run.c[name] for name in RUN))
        read = (column if column.name in also or column.name not in LONG else _empty(column) for column in columns)
        of_now = (run.c.state.label("run_state"), self._backend.clock.label("now"))
        return select(*read, *of_now).select_from(experiment.outerjoin(run, newest))

    def row(self, connection: Connection, experiment_id: str) -> Row:
        """The experiment's row with its newest run and the time, locked until a writing transaction ends."""
        self._backend.lock(connection, experiment_id)
        row = self._found(connection, experiment_id)
        if row is None:
            raise DatabaseError(f"no experiment {experiment_id!r} in {self._backend.name}.", "See: ems status")
        return row

    @cached_property
    def _one(self) -> Select[Any]:
        """Made once, as most calls ask it."""
        return self.select(LONG).where(experiment.c.id == bindparam("wanted"))

    def _found(self, connection: Connection, experiment_id: str) -> Row | None:
        return connection.execute(self._one, {"wanted": experiment_id}).mappings().one_or_none()

    def ordered(self, also: Collection[Long] = LONG, stack: str | None = None) -> Select[Any]:
        """As `Database.experiments`: of one stack or of all, in that order."""
        statement = self.select(also).order_by(*ORDER)
        return statement if stack is None else statement.where(experiment.c.stack == stack)

    def newest(self, stacks: Collection[str] | None, also: Collection[Long]) -> Select[Any]:
        """As `Database.newest`. The ranks are read from an index, what else there is only of those that are first."""
        rank = func.row_number().over(partition_by=experiment.c.stack, order_by=ORDER)
        ranks = select(experiment.c.id, rank.label("rank"))
        ranked = (ranks if stacks is None else ranks.where(experiment.c.stack.in_(sorted(set(stacks))))).subquery()
        first = select(ranked.c.id).where(ranked.c.rank == 1)
        return self.ordered(also).where(experiment.c.id.in_(first))


def _empty(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return literal_column("''", Text).label(column.name)


def _charged(connection: Connection, row: Row, attempt: int) -> float | None:
    of_run = charge.c.experiment_id == row["id"], charge.c.attempt == attempt
    found: float | None = connection.execute(select(charge.c.usd).where(*of_run)).scalar_one_or_none()
    return found


def _released_as(connection: Connection, row: Row, attempt: int) -> State | None:
    charged = and_(charge.c.experiment_id == run.c.experiment_id, charge.c.attempt == run.c.attempt)
    released = select(run.c.state).join(charge, charged)
    found = connection.execute(released.where(run.c.experiment_id == row["id"], run.c.attempt == attempt))
    state = found.scalar_one_or_none()
    return None if state is None else State(state)
