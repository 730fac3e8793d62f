"""A lab moves from one database to another: all that the first one knows is copied, and then compared."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from ems.base.errors import DatabaseError, UserError
from ems.base.messages import Say
from ems.databases import Database, Experiment
from ems.databases.projects import parents_first
from ems.databases.tables import metadata
from ems.spool.batch import Batch
from ems.spool.gathering import joined

TABLES = tuple(table.name for table in metadata.sorted_tables if table.name != "schema_version")
CHUNK = 1_000  # rows of the registry in one transaction


@dataclass(frozen=True)
class Compared:
    """What both databases have of a table, or of an experiment's results, once all is copied."""

    name: str
    rows: int
    rows_there: int
    same: bool


def copy(source: Database, target: Database, say: Say) -> list[Compared]:
    """Copy everything, and compare. May be repeated: what is there already is written again.

    UserError if an experiment is under way in `source`, or `target` knows others.
    """
    experiments = source.experiments()
    _refuse_running(experiments)
    target.create()
    _refuse_others(experiments, target.experiments())
    for table in TABLES:
        say(f"table {table}")
        for rows in _chunked(_parents_first(table, source.rows(table))):
            target.put_rows(table, rows)
    for experiment in experiments:
        say(f"results of {experiment.registration.stack}: {experiment.rows_stored:,} rows")
        for batch in _larger(source.results(experiment.id), target.cells_at_once):
            target.put_results(experiment.id, batch)
    return compare(source, target, say)


def _larger(batches: Iterable[Batch], cells: int) -> Iterator[Batch]:
    """The same rows in batches of at least so many cells, but for the last one."""
    waiting: list[Batch] = []
    found = 0
    for batch in batches:
        waiting.append(batch)
        found += len(batch) * (len(batch.columns) + 2)
        if found >= cells:
            yield joined(waiting)
            waiting, found = [], 0
    if waiting:
        yield joined(waiting)


def _refuse_running(experiments: Iterable[Experiment]) -> None:
    running = sorted({each.registration.stack for each in experiments if each.attempt and not each.state.finished})
    if running:
        raise UserError(
            f"Under way, so that it would change while it is copied: {', '.join(running)}.",
            "Wait (ems watch), or stop them: ems stop STACK",
        )


def _refuse_others(experiments: Iterable[Experiment], there: Iterable[Experiment]) -> None:
    others = {each.id for each in there} - {each.id for each in experiments}
    if others:
        raise UserError(
            f"The other database has {len(others):,} experiments that are not in this one, as {min(others)}.",
            "Copy into an empty database, or one that an earlier copy of this lab was made into.",
        )


def _parents_first(table: str, rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    if table != "project":
        return rows
    projects = {row["id"]: row for row in rows}
    return [projects[id] for id in parents_first({id: row["parent"] for id, row in projects.items()})]


def _chunked(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def compare(source: Database, target: Database, say: Say) -> list[Compared]:
    """Table by table and experiment by experiment; all rows are read."""
    found = []
    for table in TABLES:
        say(f"comparing table {table}")
        found.append(_compared(table, source.rows(table), target.rows(table)))
    for experiment in source.experiments():
        name = f"results of {experiment.registration.stack}, {experiment.id[:8]}"
        say(f"comparing {name}")
        found.append(_compared(name, result_rows(source, experiment), result_rows(target, experiment)))
    return found


def _compared(name: str, here: Iterable[Mapping[str, Any]], there: Iterable[Mapping[str, Any]]) -> Compared:
    (rows, digest), (rows_there, digest_there) = digested(here), digested(there)
    return Compared(name, rows, rows_there, (rows, digest) == (rows_there, digest_there))


def digested(rows: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """How many rows there are, and a digest of them all in whatever order."""
    count = digest = 0
    for row in rows:
        text = repr(sorted((name, _plain(value)) for name, value in row.items() if not _is_null(value)))
        digest ^= int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        count += 1
    return count, digest


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _is_null(value: Any) -> bool:
    """NaN too: SQLite has none."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def result_rows(database: Database, experiment: Experiment) -> Iterator[dict[str, Any]]:
    """An experiment's results row by row, each by column, with `point` and `row`."""
    for batch in database.results(experiment.id):
        yield from _rows(batch)


def _rows(batch: Batch) -> Iterator[dict[str, Any]]:
    names = ("point", "row", *(column.name for column in batch.columns))
    values = (batch.points, batch.rows, *(column.values for column in batch.columns))
    return (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))


def raise_if_different(found: Iterable[Compared]) -> None:
    """DatabaseError that names what differs, if anything does."""
    different = [each.name for each in found if not each.same]
    if different:
        raise DatabaseError(
            f"The copy differs in: {', '.join(different)}.",
            "Was something run meanwhile? Copy again; the first database is as it was.",
        )
