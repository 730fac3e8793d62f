"""Points of experiments as ranges and pairs: what is left of some, and what copies make of their numbers. No I/O."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress, groupby, takewhile
from operator import itemgetter

from ems.databases import columns
from ems.spool.batch import Batch

Span = tuple[int, int]


def without(points: range, spans: Sequence[Span]) -> list[range]:
    """What is left of `points`; `spans` ascend and are inclusive."""
    start, left = points.start, []
    begin = bisect_left(spans, points.start, key=itemgetter(1))
    following = map(spans.__getitem__, range(begin, len(spans)))
    for first, last in takewhile(lambda span: span[0] < points.stop, following):
        left.append(range(start, first))
        start = last + 1
    return [part for part in (*left, range(start, points.stop)) if part]


def chunks(pairs: Iterable[tuple[int, int]], most: int) -> Iterator[dict[int, int]]:
    """The pairs as mappings of at most `most`; a point that stands first in two pairs comes in two mappings."""
    chunk: dict[int, int] = {}
    for source_point, here in pairs:
        if len(chunk) == most or source_point in chunk:
            yield chunk
            chunk = {}
        chunk[source_point] = here
    if chunk:
        yield chunk


def touched(batch: Batch) -> set[int]:
    """All points that the batch stores, marks or clears."""
    return {*batch.points, *batch.replaces, *(mark.point for mark in batch.marks)}


def only(batch: Batch, wanted: Container[int]) -> Batch:
    """What the batch has of these points."""
    chosen = [point in wanted for point in batch.points]
    points, rows = (array("q", compress(keys, chosen)) for keys in (batch.points, batch.rows))
    picked = tuple(replace(column, values=list(compress(column.values, chosen))) for column in batch.columns)
    replaces = tuple(point for point in batch.replaces if point in wanted)
    return Batch(points, rows, picked, replaces, tuple(mark for mark in batch.marks if mark.point in wanted))


def moved(batch: Batch, to: Mapping[int, int]) -> Batch:
    """The batch with other points, which it replaces. Columns without a value belong to other experiments."""
    points = array("q", map(to.__getitem__, batch.points))
    valued = tuple(column for column in batch.columns if not columns.is_null(column))
    marks = tuple(replace(mark, point=to[mark.point]) for mark in batch.marks)
    replaces = tuple(dict.fromkeys([*points, *(mark.point for mark in marks)]))
    return Batch(points, batch.rows, valued, replaces, marks)


def origin_spans(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Pairs of (point there, point here) as (first point here, last point here, first point there), ascending."""
    ascending = enumerate(sorted(pairs, key=itemgetter(1)))
    runs = groupby(ascending, key=lambda item: (item[1][0] - item[0], item[1][1] - item[0]))
    spans = ([pair for _, pair in run] for _, run in runs)
    return [(span[0][1], span[-1][1], span[0][0]) for span in spans]
