"""Which of a sweep's points count."""

from __future__ import annotations

from array import array
from itertools import product

from ems.node.agent.point_count import PointCount, set_bits
from ems.spool.batch import Batch, Mark


def test_bits_are_set_as_one_by_one() -> None:
    for start, stop in product(range(34), repeat=2):
        bits = bytearray(5)
        set_bits(bits, start, stop)
        assert [bits[i // 8] >> i % 8 & 1 for i in range(40)] == [start <= i < stop for i in range(40)]


def test_a_batch_that_comes_twice_and_a_point_that_failed_before_count_once() -> None:
    count = PointCount(20)
    count.know(range(3, 9), "stored")
    count.know(range(9, 12), "failed")
    failing = Mark(11, "failed", {}, "")
    for _ in range(2):
        count.add(Batch(array("q", [8, 9]), array("q", [0, 0]), (), (8, 9, 10, 11), (Mark(10, "empty", {}), failing)))
        assert (count.done, count.failed) == (8, 1)
    assert [i for i in range(20) if count.bits[i // 8] >> i % 8 & 1] == list(range(3, 11))


def test_what_a_row_said_counts_until_it_is_known_better() -> None:
    count = PointCount(20, done=7, failed=2)
    assert (count.done, count.failed, count.given_up, count.bits) == (7, 2, 2, bytearray(3))


def test_points_that_are_due_again_are_not_given_up() -> None:
    count = PointCount(20)
    count.know(range(3), "failed")
    count.know(range(3, 8), "due")
    assert (count.failed, count.given_up) == (8, 3)
    count.add(Batch(array("q", []), array("q", []), (), (3, 4), (Mark(4, "failed", {}, ""),)))
    assert (count.done, count.failed, count.given_up) == (1, 7, 4)
