"""What is left of points and what copies make of their numbers, against going through them one by one."""

from __future__ import annotations

from array import array
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ems.databases import points
from ems.spool.batch import Batch, Column
from tests.databases.cases import empty, failed

SPANS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=6)


def ascending(steps: list[tuple[int, int]]) -> list[points.Span]:
    """Spans apart from one another, inclusive."""
    found, at = [], 0
    for gap, length in steps:
        found.append((at + gap, at + gap + length))
        at += gap + length + 1
    return found


@given(st.integers(0, 30), st.integers(0, 12), SPANS)
def test_what_is_left_is_in_none_of_the_spans(start: int, count: int, steps: list[tuple[int, int]]) -> None:
    spans, known = ascending(steps), range(start, start + count)
    left = points.without(known, spans)
    gone = {point for first, last in spans for point in range(first, last + 1)}
    assert [point for part in left for point in part] == [point for point in known if point not in gone]
    assert all(left)
    if not gone & set(known):
        assert left == ([known] if known else [])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 99)), max_size=20), st.integers(1, 5))
def test_chunks_have_all_pairs_in_order_and_each_point_once(pairs: list[tuple[int, int]], most: int) -> None:
    found = list(points.chunks(pairs, most))
    assert [pair for chunk in found for pair in chunk.items()] == pairs
    assert all(1 <= len(chunk) <= most for chunk in found)
    for chunk, following in pairwise(found):
        assert len(chunk) == most or next(iter(following)) in chunk, "ended without a reason"


def test_a_moved_batch_replaces_what_it_brings_and_leaves_null_columns_behind() -> None:
    kept = Column("x", "int64", array("q", [1, 2, 3]))
    null = Column("other", "int64", [None, None, None])
    batch = Batch(array("q", [4, 4, 9]), array("q", [0, 1, 0]), (kept, null), (4, 9, 7), (failed(5), empty(4)))
    moved = points.moved(batch, {4: 40, 5: 50, 9: 90})
    assert (moved.points, moved.rows) == (array("q", [40, 40, 90]), array("q", [0, 1, 0]))
    assert moved.columns == (kept,)
    assert moved.replaces == (40, 90, 50)
    assert [(mark.point, mark.state) for mark in moved.marks] == [(50, "failed"), (40, "empty")]


@given(st.dictionaries(st.integers(0, 25), st.integers(0, 25), max_size=20))
def test_spans_of_origins_say_where_each_point_came_from(here_to_there: dict[int, int]) -> None:
    spans = points.origin_spans((there, here) for here, there in here_to_there.items())
    found = {here: there + here - first for first, last, there in spans for here in range(first, last + 1)}
    assert found == here_to_there
    assert spans == sorted(spans)
    for (begin, last, there), (first, _, following) in pairwise(spans):
        assert first > last
        assert (first, following) != (last + 1, there + first - begin), "neighbours are one span"
