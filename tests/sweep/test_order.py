"""A random order is one: each point once, the same for the same key, spread evenly, in flat memory."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.sweep.order import LEAST_BLOCKS, MOST_POINTS, Permutation, RandomOrder

COUNTS = st.integers(1, 3000)


@given(st.text(max_size=20), COUNTS)
def test_a_permutation_has_each_number_once(key: str, count: int) -> None:
    assert sorted(Permutation(key, count)) == list(range(count))
    assert list(Permutation(key, count)) == list(Permutation(key, count))


@pytest.mark.parametrize("index", [-1, 3])
def test_a_permutation_has_an_end(index: int) -> None:
    with pytest.raises(IndexError, match=rf"{index} of a permutation of 3 numbers"):
        Permutation("k", 3)[index]


def test_orders_differ_between_keys() -> None:
    orders = {tuple(Permutation(str(key), 20)) for key in range(500)}
    assert len(orders) > 495


def test_each_number_comes_early_equally_often() -> None:
    early = [0] * 40
    for key in range(2000):
        for number in islice(Permutation(f"experiment {key}", 40), 10):
            early[number] += 1
    assert all(380 < count < 620 for count in early), early  # 500 are expected, with a deviation of 19


@given(st.text(max_size=5), st.integers(0, 30_000))
def test_both_ways_through_an_order_have_each_point_once(key: str, total: int) -> None:
    order = RandomOrder(key, total)
    assert sorted(order.points()) == list(range(total))
    blocks = list(order.blocks())
    assert sorted(point for first, last in blocks for point in range(first, last)) == list(range(total))
    assert all(first % order.block == 0 and first < last <= first + order.block for first, last in blocks)


@pytest.mark.parametrize(
    ("total", "block"),
    [(0, 1), (1, 1), (2 * LEAST_BLOCKS - 1, 1), (2 * LEAST_BLOCKS, 2), (10**5, 16), (10**6, 64), (10**8, MOST_POINTS)],
)
def test_blocks_grow_with_the_sweep(total: int, block: int) -> None:
    assert RandomOrder("k", total).block == block


@pytest.mark.parametrize("total", [100, 10**6])
def test_the_first_points_are_spread_over_all(total: int) -> None:
    order = RandomOrder("k", total)
    tenths = [0] * 10
    for point in islice(order.points(), total // 10 if total < 1000 else 20_000):
        tenths[10 * point // total] += 1
    expected = sum(tenths) / 10
    assert all(abs(count - expected) < 5 * expected**0.5 for count in tenths), tenths
    neighbours = [point for point in islice(order.points(), 1000) if total > 1000]
    assert len({point % 64 for point in neighbours}) in {0, 64}


def test_a_hundred_million_points_take_no_memory() -> None:
    tracemalloc.start()
    order = RandomOrder("k", 10**8)
    blocks = sum(1 for _ in islice(order.blocks(), 100_000)), sum(1 for _ in islice(order.points(), 100_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert blocks == (100_000, 100_000) and peak < 100_000
