"""The rows of rounds that are over, in files for those who propose the next one, and the digest of them all.

A round is read from the database once, when it is over: what it costs does not grow with the rows of those before.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.databases import Condition, Database
from ems.databases.columns import is_null
from ems.node.driver.stored import StoredRound, file_of
from ems.spool.batch import Batch, Column, ColumnType, Mark
from ems.spool.encoding import encode

FAILURES_AT_ONCE = 1_000


class Exported:
    """Writes into `folder`, which is emptied. `digest`: SHA-256 of the rows and failures, round by round."""

    def __init__(self, folder: Path, experiment_id: str) -> None:
        aside.remove(folder)
        folder.mkdir(parents=True)
        self._folder, self._id = folder, experiment_id
        self._rounds: list[StoredRound] = []
        self._types: dict[str, ColumnType] = {}
        self.digest = hashlib.sha256().hexdigest()

    @property
    def points(self) -> int:
        """How many points the rounds have that were added."""
        return self._rounds[-1].first + self._rounds[-1].points if self._rounds else 0

    @property
    def question(self) -> dict[str, Any]:
        """What `ems.node.driver.propose` needs to find the rows."""
        return {"folder": str(self._folder), "types": self._types, "rounds": list(map(astuple, self._rounds))}

    def add(self, database: Database, number: int, points: range, failed_since: int) -> None:
        """The rows of a round, all of whose points are stored; may be called again, if it was interrupted.

        `failed_since`: how many points failed from its first one on.
        """
        digest, files, rows, failed = RowsDigest(self.digest), 0, 0, 0
        for batch in _batches(database, self._id, points):
            valued = replace(batch, columns=tuple(column for column in batch.columns if not is_null(column)))
            digest.add(batch)
            self._know(valued.columns)
            self._write(number, files, valued)
            files, rows = files + 1, rows + len(batch)
        marks = _failures(database, self._id, points, failed_since)
        while part := tuple(islice(marks, FAILURES_AT_ONCE)):
            digest.add_failures(part)
            self._write(number, files, Batch(array("q"), array("q"), (), marks=part))
            files, failed = files + 1, failed + len(part)
        self.digest = digest.hexdigest()
        self._rounds.append(StoredRound(number, points.start, len(points), files, rows, failed))

    def _know(self, columns: Sequence[Column]) -> None:
        for column in columns:
            known = self._types.get(column.name, column.type)
            self._types[column.name] = "float64" if {known, column.type} == {"int64", "float64"} else known

    def _write(self, number: int, part: int, batch: Batch) -> None:
        file_of(self._folder, number, part).write_bytes(encode(batch))


def _batches(database: Database, experiment_id: str, points: range) -> Iterator[Batch]:
    """Nothing is asked where nothing was stored yet: the table lacks the columns then."""
    within = [Condition("point", ">=", points.start), Condition("point", "<", points.stop)]
    return database.results(experiment_id, where=within) if points else iter(())


def _failures(database: Database, experiment_id: str, points: range, failed_since: int) -> Iterator[Mark]:
    found = database.failures(experiment_id, failed_since) if failed_since else iter(())
    return (mark for mark in found if mark.point in points)


class RowsDigest:
    """Of rows in order, and of failures, after those that have the digest `before`.

    It is the same in every database: however rows are cut into batches, NaN or null, and with a column as whole numbers
    or as the doubles that it became later.
    """

    def __init__(self, before: str) -> None:
        self._before = before
        self._columns: dict[str, Any] = {}
        self._valued: set[str] = set()
        self._failures = hashlib.sha256()

    def add(self, batch: Batch) -> None:
        """The next rows of the same query: so all batches have the same columns."""
        keys = Column("point", "int64", batch.points), Column("row", "int64", batch.rows)
        for column in (*keys, *batch.columns):
            text, has_values = _text(column)
            self._columns.setdefault(column.name, hashlib.sha256()).update(text.encode("utf-8", "surrogatepass"))
            self._valued.update([column.name] if has_values else [])

    def add_failures(self, marks: Sequence[Mark]) -> None:
        """In order of points."""
        for mark in marks:
            self._failures.update(f"{mark.point} {mark.error!r}\n".encode())

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        columns = {name: self._columns[name].hexdigest() for name in sorted(self._valued)}
        return hashlib.sha256(json.dumps([self._before, columns, self._failures.hexdigest()]).encode()).hexdigest()


def _text(column: Column) -> tuple[str, bool]:
    """All values exactly, and whether there is one."""
    if column.type != "float64":
        return "".join(f"{value!r}, " for value in column.values), not is_null(column)
    values = [_plain(value) for value in column.values]
    return "".join(f"{value!r}, " for value in values), any(value is not None for value in values)


def _plain(value: Any) -> Any:
    if value is None or value != value:  # noqa: PLR0124  (NaN)
        return None
    return int(value) if float(value).is_integer() else value
