from __future__ import annotations

import signal
import threading
import time

import pytest

from ems.base.backoff import Backoff


def test_pauses_grow_up_to_the_longest_and_begin_again():
    pauses = Backoff(0.5, 10.0)
    assert [pauses.pause_s() for _ in range(7)] == [0.5, 1, 2, 4, 8, 10, 10] and pauses.count == 7
    pauses.reset()
    assert pauses.count == 0 and pauses.pause_s() == 0.5
    slowly = Backoff(1.0, 2.0, growth=1.5)
    assert [slowly.pause_s() for _ in range(4)] == [1, 1.5, 2, 2]


def test_a_part_of_each_pause_is_left_to_chance():
    pauses = Backoff(8.0, 8.0, spread=0.25)
    found = [pauses.pause_s() for _ in range(200)]
    assert 6 <= min(found) < 6.5 and 7.5 < max(found) <= 8


def test_it_waits_and_says_that_nothing_was_heard():
    began = time.monotonic()
    assert not Backoff(0.25, 1).wait()
    assert time.monotonic() - began >= 0.25


def test_an_event_ends_the_pause():
    event = threading.Event()
    threading.Timer(0.2, event.set).start()
    assert Backoff(60, 60).wait(event.is_set)


@pytest.mark.timeout(20)
def test_a_signal_ends_the_pause():
    told: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _frame: told.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert Backoff(60, 60).wait(lambda: bool(told))
    finally:
        signal.signal(signal.SIGALRM, before)
