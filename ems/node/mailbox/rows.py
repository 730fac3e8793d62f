"""The experiment's row in a mailbox: what happened here, with the news of the database's side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ems.base.errors import DatabaseError
from ems.base.locks import exclusive, lock_folder
from ems.databases import Registration, State, rules
from ems.databases.rules import Change
from ems.databases.runs import Decide, Found, Rows
from ems.databases.states import Row, Values, deadline
from ems.node.mailbox.folder import Folder, parts_of, row_of, row_text

_NEWS = tuple("reviewed_attempt" if each.name == "attempt" else each.name for each in fields(Registration))


class MailboxRows(Rows):
    """Of the one experiment whose mailbox this is."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir, self._folder = run_dir, Folder(run_dir)
        self._counted = False  # whether all numbers of batches are in row.json, as none was killed before it noted one

    def find(self, experiment_id: str) -> Row | None:
        found = self._read()
        return found.row if found and found.row["id"] == experiment_id else None

    def insert(self, registration: Registration) -> Row | None:
        raise DatabaseError(f"Experiment {registration.id} is registered where its database is.", "Run `ems up` there.")

    def change(self, experiment_id: str, decide: Decide) -> tuple[Values, Change | None]:
        with self.turn():
            here = self.here(experiment_id)
            change = decide(Found(here.row, here.released_as, lambda _: None, lambda _: None))
            if change is None:
                return here.row, None
            left = Here(rules.after(here.row, change), _runs_after(here.runs, change), here.last)
            self.write(left)
        return left.row, change

    @contextmanager
    def turn(self) -> Iterator[None]:
        """What is read in the block stays as it is until its end."""
        with exclusive(lock_folder(self._run_dir) / "mailbox.lock"):
            try:
                yield
            except BaseException:
                self._counted = False  # a batch may be there without its number
                raise

    def here(self, experiment_id: str) -> Here:
        """DatabaseError if this is not the experiment's mailbox."""
        found = self._read()
        if found is None or found.row["id"] != experiment_id:
            raise DatabaseError(f"no experiment {experiment_id!r} in {self._folder.path}.", "Send it again: ems up")
        return found

    def write(self, here: Here) -> None:
        """In a turn."""
        self._folder.make()
        self._folder.write("row.json", {"row": row_text(here.row), "runs": here.runs, "last": here.last})
        self._counted = True

    def _read(self) -> Here | None:
        said, known = self._folder.read("row.json"), self._folder.read("known.json")
        row = _merged(row_of(said["row"]) if said else None, row_of(known["row"]) if known else None)
        runs, last = (said["runs"], said["last"]) if said else ([], 0)
        heard = known["heard"] if known else 0
        numbers = [] if self._counted else [parts_of(name)[1] for name in self._folder.waiting()]
        return Here({**row, "now": datetime.now(UTC)}, runs, max(last, heard, *numbers)) if row else None


@dataclass(frozen=True)
class Here:
    """What a mailbox has. `row`: as it stands now; `runs`: that were here, as JSON, the earliest first; `last`: the
    number of the newest batch that there ever was."""

    row: Values
    runs: list[dict[str, Any]]
    last: int

    def released_as(self, attempt: int) -> State | None:
        """As `Found` has it."""
        ended = [run["outcome"] for run in self.runs if run["attempt"] == attempt and run["outcome"]]
        return State(ended[0]["state"]) if ended else None


def _merged(row: Values | None, known: Values | None) -> Values | None:
    """The row here with what the other side says; `known`: the row there, as it was told last.

    The other side follows what happens here. What it decides by itself counts once it knows of the newest run here and
    that is over for it: that it was reopened, or refused; or if it knows of a later run, which was elsewhere.
    """
    if known is None or (row and row["attempt"] > known["attempt"]):
        return _with_news(row, known) if row and known else row
    is_over = known["run_state"] != State.RUNNING
    if row is None or known["attempt"] > row["attempt"] or is_over:
        return {**known, "lease_until": known["heartbeat_at"]}  # nobody there holds it: that is known here alone
    return _with_news(row, known)


def _with_news(row: Values, known: Values) -> Values:
    is_cancelled = known["state"] == State.CANCELLED and known["attempt"] < row["attempt"]  # it knew of no run
    news = {
        **{name: known[name] for name in _NEWS},
        "cancel_requested": known["cancel_requested"] or is_cancelled,
        "wanted_attempt": max(row["wanted_attempt"], known["wanted_attempt"]),
    }
    if row["claimed_at"] and row["run_state"] == State.RUNNING:
        news["deadline_at"] = deadline(known["max_hours"], row["used_s"], row["claimed_at"])
    return {**row, **news}


def _runs_after(runs: list[dict[str, Any]], change: Change) -> list[dict[str, Any]]:
    """With what the change says of the newest run, and the one that begins."""
    newest = [runs[-1] | row_text(change.run)] if runs else []
    if newest and change.charge:
        newest[0]["outcome"] = _outcome(change.experiment, change.run, change.charge)
    begun = [{**row_text(change.new_run), "outcome": None}] if change.new_run else []
    return [*runs[:-1], *newest, *begun]


def _outcome(experiment: Mapping[str, Any], run: Mapping[str, Any], charge: Mapping[str, Any]) -> dict[str, Any]:
    """As which the run was released."""
    of_row = {name: experiment[name] for name in ("points_done", "points_failed", "log_tail", "files_left")}
    of_run = {name: run[name] for name in ("state", "exit_code", "error")}
    return {**of_row, **of_run, "cost_usd": charge["usd"], "cost_basis": charge["basis"]}
