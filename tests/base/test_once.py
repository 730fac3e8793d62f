"""Answers that hold for one moment."""

import threading
import time

import pytest

from ems.base.errors import UserError
from ems.base.once import Once


def test_a_question_is_asked_once_whoever_asks_and_however_often():
    once, asked, found = Once(), [], []

    def ask():
        asked.append(1)
        time.sleep(0.05)
        return once("inner", lambda: len(asked))

    threads = [threading.Thread(target=lambda: found.append(once("outer", ask))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [1] and found == [1] * 8


def test_an_error_that_a_person_can_fix_is_an_answer_and_another_one_is_not():
    once, asked = Once(), []

    def fail(error):
        asked.append(error)
        raise error

    for _ in range(2):
        with pytest.raises(UserError):
            once("a", lambda: fail(UserError("no")))
        with pytest.raises(OSError):
            once("b", lambda: fail(OSError()))
    assert [type(error) for error in asked] == [UserError, OSError, OSError]
