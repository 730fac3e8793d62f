"""Experiments and runs, alike in every database: each call lets `rules` decide on a row, and writes what they say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ems.base.errors import DatabaseError
from ems.databases import (
    Claim,
    Database,
    Experiment,
    Orders,
    Outcome,
    Output,
    Registration,
    Round,
    State,
    rules,
    tables,
)
from ems.databases.rules import Change
from ems.databases.states import Row, Values, experiment_of


@dataclass(frozen=True)
class Found:
    """An experiment as a change finds it."""

    row: Row
    released_as: Callable[[int], State | None]
    """How the run of this attempt was released, if it was; it is asked for only where `rules` need it."""
    charged: Callable[[int], float | None]
    """US dollars that the run of this attempt was charged, if it was released; so is it."""
    round: Callable[[int], Round | None]
    """The round of this number, if it was proposed; so is it."""


Decide = Callable[[Found], Change | None]


class Rows(ABC):
    """What a database brings: the rows of experiments, each with its newest run and the time."""

    @abstractmethod
    def find(self, experiment_id: str) -> Row | None:
        """The experiment's row; None if there is none."""

    @abstractmethod
    def insert(self, registration: Registration) -> Row | None:
        """A new experiment's row; None, and nothing changed, if there is one: of two at once, one is told so."""

    @abstractmethod
    def change(self, experiment_id: str, decide: Decide) -> tuple[Values, Change | None]:
        """The row as it is afterwards, and what was changed, all of it or nothing.

        Nobody else changes the row between the question and the writing; `decide` may be asked more than once.
        DatabaseError if there is no such experiment.
        """


class Runs(Database):
    """Experiments and runs by `rules`, on the rows that a subclass brings as `_rows`."""

    _rows: Rows

    def register(self, registration: Registration) -> Experiment:
        self._check_references(registration)
        row = self._rows.insert(registration) or self._changed(
            registration.id, lambda found: rules.registered_again(found.row, registration)
        )
        return experiment_of(row)

    def _check_references(self, registration: Registration) -> None:
        """DatabaseError: a missing experimenter, project or funding, or a results table that EMS needs itself."""
        wanted = (registration.experimenter, registration.project, registration.funding)
        for table, id, known in self.missing(*wanted):
            raise DatabaseError(f"no {table} {id!r} in the database.", f"{rules.choices(known)} Add it: ems up lab")
        tables.check_results_table(registration.results_table)

    def _changed(self, experiment_id: str, decide: Decide) -> Row:
        return self._rows.change(experiment_id, decide)[0]

    def reopen(self, experiment_id: str) -> Experiment:
        return experiment_of(self._changed(experiment_id, lambda found: rules.reopened(found.row)))

    def experiment(self, experiment_id: str) -> Experiment | None:
        row = self._rows.find(experiment_id)
        return None if row is None else experiment_of(row)

    def set_provisioning(self, experiment_id: str, machines: int) -> None:
        self._changed(experiment_id, lambda found: rules.provisioning(found.row, machines))

    def request_cancel(self, experiment_id: str) -> Experiment | None:
        if self._rows.find(experiment_id) is None:
            return None
        return experiment_of(self._changed(experiment_id, lambda found: rules.cancelled(found.row)))

    def note_left(self, experiment_id: str, files_left: str) -> None:
        self._changed(experiment_id, lambda found: rules.left(found.row, files_left))

    def mark_destroyed(self, experiment_id: str) -> None:
        self._changed(experiment_id, lambda found: rules.destroyed(found.row))

    def claim(self, experiment_id: str, *, agent: str, lease_s: float) -> Claim | None:
        row, change = self._rows.change(experiment_id, lambda found: rules.claimed(found.row, agent, lease_s))
        return rules.claim_of(row) if change and change.new_run else None

    def beat(self, claim: Claim, lease_s: float, points_done: int = 0, points_failed: int = 0) -> Orders:
        def decide(found: Found) -> Change:
            return rules.beaten(found.row, claim, lease_s, points_done, points_failed)

        return rules.orders(self._changed(claim.experiment_id, decide), claim)

    def describe(self, claim: Claim, platform: str) -> None:
        self._changed(claim.experiment_id, lambda found: rules.described(found.row, claim, platform))

    def propose(self, claim: Claim, wanted: Round) -> Round:
        recorded: list[Round | None] = []

        def decide(found: Found) -> Change | None:
            recorded.append(found.round(wanted.number))
            return rules.proposed(found.row, claim, wanted, recorded[-1], found.round(wanted.number - 1))

        self._changed(claim.experiment_id, decide)
        return recorded[-1] or replace(wanted, attempt=claim.attempt)

    def put_outputs(self, claim: Claim, outputs: Sequence[Output]) -> None:
        for start in range(0, len(outputs), self.outputs_at_once):
            part = outputs[start : start + self.outputs_at_once]
            self._changed(claim.experiment_id, partial(_kept, claim, part))

    def recharge(self, experiment_id: str, attempt: int, usd: float, basis: str) -> None:
        def decide(found: Found) -> Change | None:
            return rules.recharged(found.row, attempt, found.charged(attempt), usd, basis)

        self._changed(experiment_id, decide)

    def release(self, claim: Claim, outcome: Outcome) -> None:
        def decide(found: Found) -> Change | None:
            return rules.released(found.row, claim, outcome, found.released_as(claim.attempt))

        self._changed(claim.experiment_id, decide)


def _kept(claim: Claim, outputs: Sequence[Output], found: Found) -> Change:
    return rules.kept(found.row, claim, outputs)
