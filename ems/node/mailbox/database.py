"""What an agent stores into where its database does not reach: the mailbox in the run's own folder."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from ems.base import aside
from ems.base.errors import DatabaseError
from ems.databases import (
    Checkup,
    Claim,
    Condition,
    Experiment,
    Long,
    Origin,
    Output,
    PointState,
    R,
    Record,
    Registration,
    Round,
    rules,
)
from ems.databases.runs import Runs
from ems.databases.states import Row
from ems.node.mailbox.folder import Folder, Points, name_of, parts_of
from ems.node.mailbox.rows import Here, MailboxRows
from ems.spool import folder as spool
from ems.spool.batch import Batch, Column, Mark
from ems.spool.encoding import SpoolError, encode
from ems.spool.kinds import Kind, column, settled

STORE_PAUSE_S = 1.0
SAMPLES: Mapping[Kind, Any] = {"int64": 0, "giant": 2**63 - 1, "float64": 0.0, "text": "", "bool": False}


def connect(run_dir: Path) -> Mailbox:
    """That of a run's folder."""
    return Mailbox(run_dir)


class Mailbox(Runs):
    """What an agent asks of a database, with the promises of `Database`, in one folder and for one experiment.

    `results` gives one row that has the types of all: what was fetched is no longer here, and so are files that jobs
    left. Points of other experiments are told as this one's own; rounds are not here.
    """

    _rows: MailboxRows

    def __init__(self, run_dir: Path) -> None:
        self._rows, self._folder = MailboxRows(run_dir), Folder(run_dir)

    def store_pause_s(self, running_s: float) -> float:  # noqa: ARG002
        return STORE_PAUSE_S

    def close(self) -> None:
        """Nothing is open."""

    # What runs store

    def store(self, claim: Claim, batch: Batch, attempt: int | None = None) -> None:
        with self._rows.turn():
            here = self._rows.here(claim.experiment_id)
            rules.check_fence(here.row, claim)
            name = name_of(claim.attempt, here.last + 1, claim.attempt if attempt is None else attempt)
            self._folder.make()
            self._note_failures(name, batch)
            self._note_columns(batch)
            aside.write(self._folder.outbox / name, encode(batch))
            row = {**here.row, "rows_stored": _rows_after(here.row, batch)}
            self._rows.write(Here(row, here.runs, here.last + 1))

    def _note_failures(self, name: str, batch: Batch) -> None:
        failed = tuple(mark for mark in batch.marks if mark.state == "failed")
        if failed:
            aside.write(self._folder.failed / name, encode(Batch(array("q"), array("q"), (), marks=failed)))

    def _note_columns(self, batch: Batch) -> None:
        """What each column is by all rows that were stored here."""
        before = self._folder.read("columns.json") or {}
        after = dict(before)
        for each in batch.columns:
            known = before.get(each.name, [each.type, None])
            kind = settled(each.values, known[1])[0]
            after[each.name] = ["int64" if kind == "giant" else kind or known[0], kind]
        if after != before:
            self._folder.write("columns.json", after)

    # What they ask

    def points(self, experiment_id: str) -> Iterator[tuple[PointState, range]]:
        return self._points(experiment_id).ranges()

    def _points(self, experiment_id: str) -> Points:
        """What is known there, and what lies here. Failures of runs before the one that is wanted are due."""
        wanted: int = self._rows.here(experiment_id).row["wanted_attempt"]
        while True:
            waiting = self._folder.waiting()  # before what is known: what is confirmed meanwhile is in that
            known = self._folder.read("known.json") or {"points": "", "heard": 0}
            points = Points(known["points"])
            try:
                for name in waiting:
                    if parts_of(name)[1] > known["heard"]:
                        self._add(points, name, wanted)
                return points
            except FileNotFoundError:
                continue

    def _add(self, points: Points, name: str, wanted: int) -> None:
        attempt, _, of = parts_of(name)
        try:
            batch = spool.read(self._folder.outbox / name)
        except SpoolError:  # it will be set aside, and its points are missing
            return
        points.add(batch, is_late=of < attempt, is_due=of < wanted)

    def failures(self, experiment_id: str, last: int | None = None) -> Iterator[Mark]:
        """Of those that failed here."""
        points = self._points(experiment_id)
        found: dict[int, Mark] = {}
        for path in sorted(self._folder.failed.glob("*.batch")):
            found |= {mark.point: mark for mark in spool.read(path).marks}
        failed = [found[point] for point in sorted(found) if points.get(point) in {"failed", "due"}]
        return iter(failed if last is None else failed[len(failed) - min(last, len(failed)) :])

    def results(
        self,
        experiment_id: str,  # noqa: ARG002
        columns: Sequence[str] | None = None,
        where: Sequence[Condition] = (),
        chunk_rows: int = 10_000,  # noqa: ARG002
    ) -> Iterator[Batch]:
        """One row that has the types of all, and a value in each column that has one."""
        known: dict[str, Any] = (self._folder.read("known.json") or {}).get("columns", {})
        known |= self._folder.read("columns.json") or {}
        if any(known.get(condition.column, [None, None])[1] is None for condition in where) or not known:
            return
        names = known if columns is None else columns
        yield Batch(array("q", [0]), array("q", [0]), tuple(_sample(name, *known[name]) for name in names))

    def reusable(self, registration: Registration) -> list[Experiment]:  # noqa: ARG002
        return []

    def origins(self, experiment_id: str) -> Iterator[Origin]:  # noqa: ARG002
        return iter(())

    def outputs(self, experiment_id: str) -> Iterator[Output]:  # noqa: ARG002
        return iter(())

    def rounds(self, experiment_id: str) -> list[Round]:  # noqa: ARG002
        return []

    def propose(self, claim: Claim, wanted: Round) -> Round:  # noqa: ARG002
        raise DatabaseError("`job: propose` needs a database that its place reaches.", "See the place's page.")

    def put_outputs(self, claim: Claim, outputs: Sequence[Output]) -> None:
        with self._rows.turn():
            rules.check_fence(self._rows.here(claim.experiment_id).row, claim)
            self._folder.files.record(claim.attempt, [asdict(output) for output in outputs])

    # What only a lab's database can do

    def _refuse(self) -> NoReturn:
        raise DatabaseError(f"{self._folder.path} is not the lab's database.", "This is a fault of EMS: report it.")

    def create(self) -> None:
        self._refuse()

    def setup_script(self) -> str:
        self._refuse()

    def setup(self) -> None:
        self._refuse()

    def check(self) -> Checkup:
        self._refuse()

    def upsert(self, record: Record) -> None:  # noqa: ARG002
        self._refuse()

    def missing(self, experimenter: str, project: str, funding: str) -> list[tuple[str, str, list[str]]]:  # noqa: ARG002
        self._refuse()

    def record(self, kind: type[R], id: str) -> R | None:  # noqa: ARG002
        self._refuse()

    def experiments(self, stack: str | None = None) -> list[Experiment]:  # noqa: ARG002
        self._refuse()

    def newest(self, stacks: Collection[str] | None = None, also: Collection[Long] = ()) -> list[Experiment]:  # noqa: ARG002
        self._refuse()

    def check_columns(self, table: str, batch: Batch) -> None:  # noqa: ARG002
        self._refuse()

    def copy_points(self, claim: Claim, source: str, pairs: Iterable[tuple[int, int]]) -> int:  # noqa: ARG002
        self._refuse()

    def rows(self, table: str) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        self._refuse()

    def put_rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:  # noqa: ARG002
        self._refuse()

    def put_results(self, results: Sequence[tuple[str, Batch]]) -> None:  # noqa: ARG002
        self._refuse()


def _rows_after(row: Row, batch: Batch) -> int:
    """Of a command exactly: its rows are numbered on. Of a sweep, rows that take the place of others count again."""
    before = 0 if batch.replaces and row["points_total"] == 1 else int(row["rows_stored"])
    if row["points_total"] != 1:
        return before + len(batch)
    return max(before, max(batch.rows, default=-1) + 1)


def _sample(name: str, type_: Any, kind: Kind | None) -> Column:
    return replace(column(name, kind or type_, [SAMPLES[kind] if kind else None]), name=name)
