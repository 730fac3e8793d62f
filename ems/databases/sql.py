"""The database that all SQL services share, in SQLAlchemy Core, on top of what each brings (`sql_backend`)."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from sqlalchemy import Connection, select

from ems.databases import (
    LONG,
    Checkup,
    Claim,
    Condition,
    Experiment,
    Long,
    Origin,
    Output,
    PointState,
    Project,
    R,
    Record,
    Registration,
    Round,
    columns,
    points,
    rules,
    sql_marks,
    tables,
)
from ems.databases.runs import Runs
from ems.databases.sql_backend import SqlBackend, Write
from ems.databases.sql_rows import SqlRows
from ems.databases.sql_setup import SqlSetup
from ems.databases.states import Row, experiment_of
from ems.databases.tables import TABLE_OF, experiment, metadata
from ems.spool.batch import Batch, Mark

ROWS_AT_ONCE = 1_000  # of the registry, in one statement


class SqlDatabase(Runs):
    """The database on top of a backend; `rows`: what is to take the place of its `SqlRows`."""

    _rows: SqlRows

    def __init__(self, backend: SqlBackend, rows: SqlRows | None = None) -> None:
        self._backend = backend
        self._rows = rows or SqlRows(backend)
        self._setup = SqlSetup(backend)

    def close(self) -> None:
        self._backend.close()

    # Tables

    def create(self) -> None:
        self._backend.create()

    def setup(self) -> None:
        self._setup.setup()

    def setup_script(self) -> str:
        return self._setup.script()

    def check(self) -> Checkup:
        return self._setup.check()

    # Experimenters, projects, funding, clusters

    def upsert(self, record: Record) -> None:
        with self._backend.writing() as connection:
            if isinstance(record, Project):
                rules.check_parent(record, {row.id: row.parent for row in connection.execute(select(tables.project))})
            self._backend.put(connection, TABLE_OF[type(record)], [asdict(record)])

    def missing(self, experimenter: str, project: str, funding: str) -> list[tuple[str, str, list[str]]]:
        absent = []
        with self._backend.reading() as connection:
            wanted = {tables.experimenter: experimenter, tables.project: project, tables.funding: funding}
            for table, id in wanted.items():
                known = list(connection.execute(select(table.c.id).order_by(table.c.id)).scalars())
                if id not in known:
                    absent.append((table.name, id, known))
        return absent

    def record(self, kind: type[R], id: str) -> R | None:
        table = TABLE_OF[kind]
        with self._backend.reading() as connection:
            row = connection.execute(select(table).where(table.c.id == id)).mappings().one_or_none()
        return None if row is None else kind(**row)

    # Experiments

    def experiments(self, stack: str | None = None) -> list[Experiment]:
        with self._backend.reading() as connection:
            rows = connection.execute(self._rows.ordered(stack=stack))
            return [experiment_of(row) for row in rows.mappings()]

    def newest(self, stacks: Collection[str] | None = None, also: Collection[Long] = ()) -> list[Experiment]:
        if stacks is not None and not stacks:
            return []
        with self._backend.reading() as connection:
            rows = connection.execute(self._rows.newest(stacks, also))
            return [experiment_of(row) for row in rows.mappings()]

    def reusable(self, registration: Registration) -> list[Experiment]:
        if not registration.job_digest:
            return []
        same = ("tree", "environment_digest", "python", "job_digest")
        alike = [experiment.c[name] == getattr(registration, name) for name in same]
        others = self._rows.select(LONG).where(*alike, experiment.c.id != registration.id, experiment.c.attempt > 0)
        with self._backend.reading() as connection:
            rows = connection.execute(others.order_by(experiment.c.registered_at.desc(), experiment.c.id))
            return [experiment_of(row) for row in rows.mappings()]

    # Points

    def _kept(self, connection: Connection, row: Row) -> Row:
        """The experiment's row; DatabaseError if somebody dropped the table with its results."""
        if row["rows_stored"] and not self._backend.has_table(connection, row["results_table"]):
            raise columns.lost(row["results_table"], row["rows_stored"])
        return row

    def _with_results(self, connection: Connection, experiment_id: str) -> Row:
        return self._kept(connection, self._rows.row(connection, experiment_id))

    def store(self, claim: Claim, batch: Batch, attempt: int | None = None) -> None:
        with self._backend.writing() as connection:
            self._store(connection, claim, batch, claim.attempt if attempt is None else attempt)

    def check_columns(self, table: str, batch: Batch) -> None:
        with self._backend.reading() as connection:
            self._backend.check_columns(connection, table, batch)

    def _store(
        self, connection: Connection, claim: Claim, batch: Batch, attempt: int, also: Sequence[Write] = ()
    ) -> None:
        row = self._rows.row(connection, claim.experiment_id)
        rules.check_fence(row, claim)
        if attempt < claim.attempt:
            batch = points.only(batch, self._wanting(connection, row, points.touched(batch), attempt))
        if batch.marks:
            batch = replace(batch, replaces=(*batch.replaces, *(mark.point for mark in batch.marks)))
        marks = sql_marks.changes(connection, claim.experiment_id, attempt, batch)
        self._backend.store(connection, self._kept(connection, row), claim, batch, [*marks, *also])

    def _wanting(self, connection: Connection, row: Row, touched: set[int], attempt: int) -> set[int]:
        """Those of the points of which there is nothing, or which failed in a run before `attempt`."""
        asked = sorted(touched)
        if not asked:
            return set()
        stored = (found.points for found in self._backend.rows_of(connection, self._kept(connection, row), asked))
        return touched.difference(*stored, sql_marks.standing(connection, row["id"], asked, attempt))

    def points(self, experiment_id: str) -> Iterator[tuple[PointState, range]]:
        with self._backend.reading() as connection:
            row = self._with_results(connection, experiment_id)
            for found in columns.ranges(self._backend.stored_points(connection, row)):
                yield "stored", found
            yield from sql_marks.marked(connection, experiment_id, row["wanted_attempt"])

    def rounds(self, experiment_id: str) -> list[Round]:
        with self._backend.reading() as connection:
            self._rows.row(connection, experiment_id)
            return self._rows.rounds(connection, experiment_id)

    def outputs(self, experiment_id: str) -> Iterator[Output]:
        with self._backend.reading() as connection:
            self._rows.row(connection, experiment_id)
            yield from sql_marks.outputs(connection, experiment_id)

    def failures(self, experiment_id: str, last: int | None = None) -> Iterator[Mark]:
        with self._backend.reading() as connection:
            self._rows.row(connection, experiment_id)
            yield from sql_marks.failures(connection, experiment_id, last)

    def copy_points(self, claim: Claim, source: str, pairs: Iterable[tuple[int, int]]) -> int:
        return sum(self._copy(claim, source, chunk) for chunk in points.chunks(pairs, self.pairs_at_once))

    def _copy(self, claim: Claim, source: str, to: Mapping[int, int]) -> int:
        copied = 0
        with self._backend.reading() as connection:
            outputs = list(sql_marks.outputs(connection, source, (min(to), max(to))))
        for found in self._found(source, sorted(to)):
            there = {point: to[point] for point in (*found.points, *(mark.point for mark in found.marks))}
            origins = sql_marks.noted_origins(claim, source, there.items())
            also = [origins, *sql_marks.moved_outputs(claim, outputs, there)]
            with self._backend.writing() as connection:
                self._store(connection, claim, points.moved(found, to), claim.attempt, also)
            copied += len(there)
        return copied

    def _found(self, experiment_id: str, points: list[int]) -> Iterator[Batch]:
        """What there is of these points, in batches of whole points."""
        with self._backend.reading() as connection:
            yield from self._backend.rows_of(connection, self._with_results(connection, experiment_id), points)
            empties = sql_marks.empties(connection, experiment_id, points)
        if empties:
            yield Batch(array("q"), array("q"), (), marks=empties)

    def origins(self, experiment_id: str) -> Iterator[Origin]:
        with self._backend.reading() as connection:
            self._rows.row(connection, experiment_id)
            yield from sql_marks.origins(connection, experiment_id)

    def results(
        self,
        experiment_id: str,
        columns: Sequence[str] | None = None,
        where: Sequence[Condition] = (),
        chunk_rows: int = 10_000,
    ) -> Iterator[Batch]:
        with self._backend.reading() as connection:
            row = self._with_results(connection, experiment_id)
            yield from self._backend.read(connection, row, columns, where, chunk_rows)

    # Copies of a whole lab

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        found = metadata.tables[table]
        with self._backend.reading() as connection:
            for row in connection.execute(select(found), execution_options=sql_marks.STREAMED).mappings():
                yield dict(row)

    def put_rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        with self._backend.writing() as connection:
            for chunk in _chunked(rows):
                self._backend.put(connection, metadata.tables[table], chunk)

    def put_results(self, results: Sequence[tuple[str, Batch]]) -> None:
        with self._backend.writing() as connection:
            for experiment_id, batch in results:
                row = self._rows.row(connection, experiment_id)
                self._backend.put_results(connection, row, Claim(experiment_id, 0, row["results_table"], None), batch)


def _chunked(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, ROWS_AT_ONCE)):
        yield chunk
