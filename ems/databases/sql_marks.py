"""What the tables `point`, `copied` and `output` say of points, in SQLAlchemy Core, inside the caller's transaction.

Changes are given as statements, which the caller executes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, case, delete, func, insert, or_, select
from sqlalchemy import Row as SqlRow

from ems.databases import Claim, Origin, Output, PointState, columns
from ems.databases import outputs as outputs_rules
from ems.databases.points import Span, origin_spans, without
from ems.databases.sql_backend import Write
from ems.databases.tables import copied, output, point
from ems.spool.batch import Batch, Mark, from_jsonable, jsonable

STREAMED = {"yield_per": 10_000}


def changes(connection: Connection, experiment_id: str, attempt: int, batch: Batch) -> Iterator[Write]:
    """What writes the marks of a batch of run `attempt`; what was said of the points that it replaces is forgotten."""
    replaced = columns.spans(batch.replaces)
    if replaced:
        yield from _forgetting(connection, experiment_id, replaced)
    if batch.marks:
        key = {"experiment_id": experiment_id, "attempt": attempt}
        yield insert(point), [key | _mark_values(mark) for mark in batch.marks]


def _mark_values(mark: Mark) -> dict[str, Any]:
    return {
        "point": mark.point,
        "state": mark.state,
        "parameters": jsonable(mark.parameters),
        "error": mark.error,
    }


def _forgetting(connection: Connection, experiment_id: str, replaced: Sequence[Span]) -> Iterator[Write]:
    """Mostly there is nothing, which one query finds out."""
    within = replaced[0][0], replaced[-1][1]
    marked = select(point.c.point).where(point.c.experiment_id == experiment_id, point.c.point.between(*within))
    overlapping = _overlapping(experiment_id, *within)
    has_marks, has_origins = connection.execute(select(marked.exists(), overlapping.exists())).one()
    if has_marks:
        yield _forgetting_marks(experiment_id, replaced)
    if has_origins:
        yield from _forgetting_origins(experiment_id, replaced, connection.execute(overlapping).all())


def _forgetting_marks(experiment_id: str, replaced: Sequence[Span]) -> Write:
    within = point.c.point.between(bindparam("first"), bindparam("last"))
    spans = [{"first": first, "last": last} for first, last in replaced]
    return delete(point).where(point.c.experiment_id == experiment_id, within), spans


def _forgetting_origins(experiment_id: str, replaced: Sequence[Span], found: Sequence[SqlRow[Any]]) -> Iterator[Write]:
    gone, left = [], []
    for row in found:
        known = range(row.first_point, row.last_point + 1)
        kept = without(known, replaced)
        if kept != [known]:
            gone.append({"first": row.first_point})
            left += [_moved_origin(row, part) for part in kept]
    if gone:
        key = and_(copied.c.experiment_id == experiment_id, copied.c.first_point == bindparam("first"))
        yield delete(copied).where(key), gone
    if left:
        yield insert(copied), left


def _overlapping(experiment_id: str, first: int, last: int) -> Select[Any]:
    """Origins lie in order and apart, so the newest that begins before `first` is the only one to reach into it."""
    mine = copied.c.experiment_id == experiment_id
    before = select(func.max(copied.c.first_point)).where(mine, copied.c.first_point <= first).scalar_subquery()
    begins = copied.c.first_point.between(func.coalesce(before, first), last)
    return select(copied).where(mine, begins, copied.c.last_point >= first)


def _moved_origin(row: Any, part: range) -> dict[str, Any]:
    source_point = row.source_point + part.start - row.first_point
    moved = {"first_point": part.start, "last_point": part[-1], "source_point": source_point}
    return {"experiment_id": row.experiment_id, "source": row.source, "attempt": row.attempt, **moved}


def marked(connection: Connection, experiment_id: str, wanted_attempt: int) -> Iterator[tuple[PointState, range]]:
    """The points that are empty, failed or due, as `Database.points` gives them."""
    is_due = and_(point.c.state == "failed", point.c.attempt < wanted_attempt)
    state = case((is_due, "due"), else_=point.c.state).label("state")
    statement = select(point.c.point, state).where(point.c.experiment_id == experiment_id)
    rows = connection.execute(statement.order_by(point.c.point), execution_options=STREAMED)
    for state, alike in groupby(rows, key=attrgetter("state")):
        for found in columns.ranges(row.point for row in alike):
            yield state, found


def failures(connection: Connection, experiment_id: str, last: int | None) -> Iterator[Mark]:
    """As `Database.failures`."""
    mine = select(point).where(point.c.experiment_id == experiment_id, point.c.state == "failed")
    if last is not None:
        found = connection.execute(mine.order_by(point.c.point.desc()).limit(last)).all()
        return map(_mark, reversed(found))
    return map(_mark, connection.execute(mine.order_by(point.c.point), execution_options=STREAMED))


def empties(connection: Connection, experiment_id: str, points: Sequence[int]) -> tuple[Mark, ...]:
    """The marks of those of `points` that are empty, in any order."""
    mine = point.c.experiment_id == experiment_id, point.c.state == "empty", point.c.point.in_(points)
    return tuple(map(_mark, connection.execute(select(point).where(*mine))))


def standing(connection: Connection, experiment_id: str, points: Sequence[int], attempt: int) -> set[int]:
    """The points, about those of the ascending `points`, that are empty, or failed in run `attempt` or a later one."""
    stands = or_(point.c.state == "empty", point.c.attempt >= attempt)
    mine = point.c.experiment_id == experiment_id, point.c.point.between(points[0], points[-1])
    return set(connection.execute(select(point.c.point).where(*mine, stands)).scalars())


def _mark(row: Any) -> Mark:
    return Mark(row.point, row.state, from_jsonable(row.parameters), row.error)


# Copies


def noted_origins(claim: Claim, source: str, pairs: Iterable[tuple[int, int]]) -> Write:
    """`pairs`: (point there, point here)."""
    key = {"experiment_id": claim.experiment_id, "source": source, "attempt": claim.attempt}
    names = ("first_point", "last_point", "source_point")
    return insert(copied), [key | dict(zip(names, span, strict=True)) for span in origin_spans(pairs)]


def moved_outputs(claim: Claim, found: Iterable[Output], to: Mapping[int, int]) -> Iterator[Write]:
    """What records the files of copied points, in place of those that these had."""
    rows = outputs_rules.rows_of(claim, outputs_rules.moved(found, to))
    if rows:
        mine = output.c.experiment_id == claim.experiment_id, output.c.point == bindparam("at")
        yield delete(output).where(*mine), [{"at": point} for point in sorted({row["point"] for row in rows})]
        yield insert(output), rows


def outputs(connection: Connection, experiment_id: str, span: Span | None = None) -> Iterator[Output]:
    """As `Database.outputs`; of all points, or those from the first to the last of `span`."""
    mine = select(output).where(output.c.experiment_id == experiment_id)
    wanted = mine if span is None else mine.where(output.c.point.between(*span))
    rows = connection.execute(wanted.order_by(output.c.point), execution_options=STREAMED)
    return outputs_rules.outputs_of(rows.mappings())


def origins(connection: Connection, experiment_id: str) -> Iterator[Origin]:
    """As `Database.origins`."""
    statement = select(copied).where(copied.c.experiment_id == experiment_id).order_by(copied.c.first_point)
    for row in connection.execute(statement, execution_options=STREAMED):
        points = range(row.first_point, row.last_point + 1)
        yield Origin(points, row.source, range(row.source_point, row.source_point + len(points)))
