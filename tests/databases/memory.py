"""The calls about runs on rows in memory, with a clock that tests set."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from ems.base.errors import DatabaseError
from ems.databases import Registration, State, rules, states
from ems.databases.runs import Decide, Found, Rows, Runs

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Memory(Rows):
    """One experiment, its runs and charges, and a clock that tests set."""

    def __init__(self) -> None:
        self.now = NOON
        self.experiment: dict[str, Any] = {}
        self.runs: list[dict[str, Any]] = []
        self.charges: dict[int, dict[str, Any]] = {}

    def find(self, experiment_id: str) -> dict[str, Any] | None:
        if self.experiment.get("id") != experiment_id:
            return None
        newest = self.runs[-1] if self.runs else {}
        of_run = {name: newest.get(name) for name in states.RUN}
        return {**self.experiment, **of_run, "run_state": newest.get("state"), "now": self.now}

    def insert(self, registration: Registration) -> dict[str, Any] | None:
        if self.experiment:
            return None
        row = rules.registered(registration, self.now)
        self.experiment = {name: value for name, value in row.items() if name not in {*states.RUN, "run_state", "now"}}
        assert self.find(registration.id) == row
        return row

    def change(self, experiment_id: str, decide: Decide) -> tuple[dict[str, Any], rules.Change | None]:
        row = self.find(experiment_id)
        if row is None:
            raise DatabaseError(f"no experiment {experiment_id!r}.")
        untouched = deepcopy(row)
        change = decide(Found(row, self.released_as, self.charged, lambda _: None))
        assert row == untouched  # a decision changes nothing itself
        if change is None:
            return row, None
        self._apply(change)
        assert rules.after(row, change) == self.find(experiment_id)
        return rules.after(row, change), change

    def _apply(self, change: rules.Change) -> None:
        self.experiment |= change.experiment
        if change.run:
            self.runs[-1] |= change.run
        if change.charge:
            assert self.charges.setdefault(change.charge["attempt"], change.charge) is change.charge
        if change.new_run:
            assert change.new_run["attempt"] == len(self.runs) + 1
            self.runs.append(change.new_run)

    def released_as(self, attempt: int) -> State | None:
        return self.runs[attempt - 1]["state"] if attempt in self.charges else None

    def charged(self, attempt: int) -> float | None:
        return self.charges[attempt]["usd"] if attempt in self.charges else None

    def everything(self) -> Any:
        return deepcopy((self.experiment, self.runs, self.charges))


class Calls(Runs):
    """The calls about runs, without the rest of a database."""

    def __init__(self, memory: Memory) -> None:
        self._rows = memory

    def missing(self, *_: str) -> list[tuple[str, str, list[str]]]:
        return []


Calls.__abstractmethods__ = frozenset()
