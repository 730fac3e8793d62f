"""What all SQL services share: points, on top of experiments and runs. A subclass brings engine, errors and results."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select

from ems.databases import Claim, Experiment, Origin, PointState, Registration, columns, points, sql_marks
from ems.databases.rules import experiment_of
from ems.databases.sql_runs import SqlRuns
from ems.databases.tables import experiment, metadata
from ems.spool.batch import Batch, Mark


class SqlDatabase(SqlRuns):
    @abstractmethod
    def _has_table(self, connection: Connection, name: str) -> bool: ...

    def _kept(self, connection: Connection, row: Any) -> Any:
        """The experiment's row; DatabaseError if somebody dropped the table with its results."""
        if row["rows_stored"] and not self._has_table(connection, row["results_table"]):
            raise columns.lost(row["results_table"], row["rows_stored"])
        return row

    def store(self, claim: Claim, batch: Batch) -> None:
        with self._writing() as connection:
            self._kept(connection, self._fenced(connection, claim))
            self._store_points(connection, claim, batch)

    def _store_points(self, connection: Connection, claim: Claim, batch: Batch) -> None:
        if batch.marks:
            batch = replace(batch, replaces=(*batch.replaces, *(mark.point for mark in batch.marks)))
        grown = self._store(connection, claim, batch)
        sql_marks.record(connection, claim, batch)
        self._update(connection, claim.experiment_id, rows_stored=experiment.c.rows_stored + grown)

    def points(self, experiment_id: str) -> Iterator[tuple[PointState, range]]:
        with self._reading() as connection:
            row = self._kept(connection, self._row(connection, experiment_id))
            for found in columns.ranges(self._stored_points(connection, row)):
                yield "stored", found
            yield from sql_marks.marked(connection, experiment_id, row["wanted_attempt"])

    def failures(self, experiment_id: str, last: int | None = None) -> Iterator[Mark]:
        with self._reading() as connection:
            self._row(connection, experiment_id)
            yield from sql_marks.failures(connection, experiment_id, last)

    def reusable(self, registration: Registration) -> list[Experiment]:
        if not registration.job_digest:
            return []
        same = ("tree", "environment_digest", "python", "job_digest")
        alike = [experiment.c[name] == getattr(registration, name) for name in same]
        others = self._select().where(*alike, experiment.c.id != registration.id, experiment.c.attempt > 0)
        with self._reading() as connection:
            rows = connection.execute(others.order_by(experiment.c.registered_at.desc(), experiment.c.id))
            return [experiment_of(row) for row in rows.mappings()]

    def copy_points(self, claim: Claim, source: str, pairs: Iterable[tuple[int, int]]) -> int:
        return sum(self._copy(claim, source, chunk) for chunk in points.chunks(pairs, self.pairs_at_once))

    def _copy(self, claim: Claim, source: str, to: Mapping[int, int]) -> int:
        copied = 0
        for found in self._found(source, sorted(to)):
            there = {*found.points, *(mark.point for mark in found.marks)}
            with self._writing() as connection:
                self._kept(connection, self._fenced(connection, claim))
                self._store_points(connection, claim, points.moved(found, to))
                sql_marks.note_origins(connection, claim, source, [(point, to[point]) for point in there])
            copied += len(there)
        return copied

    def _found(self, experiment_id: str, points: list[int]) -> Iterator[Batch]:
        """What there is of these points, in batches of whole points."""
        with self._reading() as connection:
            yield from self._rows_of(connection, self._kept(connection, self._row(connection, experiment_id)), points)
            empties = sql_marks.empties(connection, experiment_id, points)
        if empties:
            yield Batch(array("q"), array("q"), (), marks=empties)

    def origins(self, experiment_id: str) -> Iterator[Origin]:
        with self._reading() as connection:
            self._row(connection, experiment_id)
            yield from sql_marks.origins(connection, experiment_id)

    # Copies of a whole lab

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        found = metadata.tables[table]
        with self._reading() as connection:
            for row in connection.execute(select(found), execution_options=sql_marks.STREAMED).mappings():
                yield dict(row)

    def put_rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        with self._writing() as connection:
            for row in rows:
                self._put(connection, metadata.tables[table], dict(row))

    def put_results(self, experiment_id: str, batch: Batch) -> None:
        with self._writing() as connection:
            table = self._row(connection, experiment_id)["results_table"]
            self._store(connection, Claim(experiment_id, 0, table, None), batch)
