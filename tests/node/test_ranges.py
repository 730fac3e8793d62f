from __future__ import annotations

import time
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from ems.node.driver.ranges import BATCH_POINTS, Backlog, BatchSize, count_open, cut, open_ranges, size, split, without


def bitmap(done: set[int], total: int) -> bytes:
    made = bytearray((total + 7) // 8)
    for point in done:
        made[point // 8] |= 1 << point % 8
    return bytes(made)


def points(ranges: list[tuple[int, int]]) -> list[int]:
    return [point for first, last in ranges for point in range(first, last)]


@given(st.integers(0, 70), st.sets(st.integers(0, 69)))
def test_open_points_are_those_not_done(total: int, done: set[int]) -> None:
    done = {point for point in done if point < total}
    ranges = list(open_ranges(bitmap(done, total), total))
    assert points(ranges) == sorted(set(range(total)) - done)
    assert all(one[1] < other[0] for one, other in pairwise(ranges))
    assert count_open(bitmap(done, total), total) == total - len(done)


@given(st.integers(0, 200), st.binary(max_size=30))
@example(8, b"\xff")
@example(12, b"\xff\x0f")
def test_any_bitmap_may_be_shorter_or_longer_than_the_points(total: int, done: bytes) -> None:
    expected = [point for point in range(total) if point // 8 >= len(done) or not done[point // 8] >> point % 8 & 1]
    ranges = list(open_ranges(done, total))
    assert points(ranges) == expected
    assert all(first < last for first, last in ranges)
    assert count_open(done, total) == len(expected)


@given(st.integers(0, 70), st.sets(st.integers(0, 69)), st.integers(-1, 70))
def test_all_points_but_one(total: int, done: set[int], point: int) -> None:
    done = {each for each in done if each < total}
    ranges = list(open_ranges(bitmap(done, total), total))
    left = without(ranges, point)
    assert points(left) == [each for each in points(ranges) if each != point]
    assert all(first < last for first, last in left)


def test_a_bitmap_that_is_too_short_says_nothing_of_the_rest() -> None:
    assert list(open_ranges(b"\xff", 20)) == [(8, 20)]
    assert count_open(b"\xff", 20) == 12


def test_a_hundred_million_points_are_looked_through_at_once() -> None:
    done = bytes([0xFF]) * 12_400_000 + bytes(100_000)
    began = time.process_time()
    assert list(open_ranges(done, 10**8)) == [(99_200_000, 10**8)]
    assert count_open(done, 10**8) == 800_000
    assert time.process_time() - began < 5


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9))), st.integers(0, 60), st.integers(1, 12))
def test_cutting_and_splitting_keep_all_points_in_order(spans: list[tuple[int, int]], count: int, parts: int) -> None:
    ranges = [(first, first + length) for first, length in spans]
    head, rest = cut(ranges, count)
    assert points(head) + points(rest) == points(ranges)
    assert size(head) == min(count, size(ranges))
    assert all(first < last for first, last in (*head, *rest))
    pieces = list(split(ranges, parts))
    assert [point for piece in pieces for point in points(piece)] == points(ranges)
    assert len(pieces) == min(parts, size(ranges))
    assert all(pieces)


@given(st.integers(0, 20_000), st.sets(st.integers(0, 19_999), max_size=60), st.text(min_size=1, max_size=3))
def test_in_a_random_order_each_open_point_comes_once(total: int, done: set[int], key: str) -> None:
    done = {point for point in done if point < total}
    backlog = Backlog(bitmap(done, total), total, key)
    taken = [backlog.take(7_000) for _ in range(4)]
    assert sorted(point for each in taken for point in points(each)) == sorted(set(range(total)) - done)
    assert backlog.left == 0 and backlog.take(1) == []


def test_a_random_order_of_many_points_is_taken_in_ranges() -> None:
    backlog = Backlog(b"", 10**6, "e1")
    taken = backlog.take(6400)
    assert taken == Backlog(b"", 10**6, "e1").take(6400) != Backlog(b"", 10**6, "e2").take(6400)
    assert len(taken) == 100 and taken != sorted(taken)


def test_what_is_given_back_is_taken_next() -> None:
    backlog = Backlog(bitmap({2}, 10), 10)
    assert backlog.left == 9
    taken = backlog.take(4)
    assert points(taken) == [0, 1, 3, 4]
    backlog.give_back([(1, 2), (3, 5)])
    assert points(backlog.take(5)) == [1, 3, 4, 5, 6]
    assert points(backlog.take(100)) == [7, 8, 9]
    assert backlog.left == 0
    assert backlog.take(1) == []


def test_costs_are_halves_of_the_old_and_the_new() -> None:
    batches = BatchSize()
    batches.learn(10, 0.02, 100)
    assert batches.points(10**6, 2) == 250
    batches.learn(2, 0.012, 100)
    assert batches.points(10**6, 2) == 125
    large = BatchSize()
    large.learn(2, 2e-6, 4_000_000)
    assert large.points(10**7, 2) == 4
    large.learn(2, 2e-6, 0)
    assert large.points(10**7, 2) == 8


def test_the_size_of_batches_follows_their_cost() -> None:
    batches = BatchSize()
    assert batches.points(10**6, 2) == 1
    batches.learn(1, 0.001, 100)
    assert batches.points(10**6, 2) == 500
    assert batches.points(400, 2) == 100  # towards the end
    assert batches.points(4, 2) == 50  # never so small that the work about it outweighs it
    batches.learn(1, 10.0, 100)
    assert batches.points(10**6, 2) == 1
    for _ in range(40):
        batches.learn(1000, 1e-6, 100)
    assert batches.points(10**7, 2) == BATCH_POINTS
    batches.learn(1, 1e-6, 4_000_000)
    assert batches.points(10**7, 2) == 2
