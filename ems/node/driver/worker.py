"""A worker process of a sweep: a plain Python that computes points in its main thread and does nothing else.

A sweep's function meets what it would meet in a script. Its code is imported once, in the thread and the context in
which all points are computed; signals are at their defaults; it may fork, start processes and change the folder; and
nobody else in the process draws random numbers or changes what all of a process shares. Standard library alone,
Python 3.9 or newer.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import sys
from contextlib import suppress
from typing import BinaryIO

from ems.base.errors import EmsError
from ems.node.driver.points import Returned, Work, load
from ems.node.driver.position import IDLE, Position
from ems.node.driver.shared import SharedMemory

BOOT = """\
import sys
sys.path[0], *arguments = sys.argv[1:]
del sys.argv[1:]
from ems.node.driver.worker import serve
serve(arguments[0], *map(int, arguments[1:]))
"""


def serve(order_file: str, requests: int, answers: int, position: int, driver: int, shared: int) -> None:
    """Answer requests, pairs of ranges and known columns, with `Returned`, or with one EmsError and end.

    Requests and answers are pickled. `driver`: a pipe that closes when the driver ends; `shared`: a file, as of
    `SharedMemory`.
    """
    os.setpgid(0, 0)  # a signal to the job is for the driver, which ends this group: the function's own processes too
    for descriptor in (requests, answers, position, driver, shared):
        os.set_inheritable(descriptor, False)
    end_with(driver)
    memory = SharedMemory(shared)
    with os.fdopen(requests, "rb") as asked, os.fdopen(answers, "wb") as answered, suppress(EOFError, BrokenPipeError):
        _answer_all(order_file, Position(position), memory, asked, answered)  # until the driver closes the pipe


def _answer_all(order_file: str, position: Position, shared: SharedMemory, asked: BinaryIO, answered: BinaryIO) -> None:
    try:
        task = load(order_file, position, shared)
        while True:
            position.set(IDLE)
            ranges, known = pickle.load(asked)
            task = task.reaching(ranges)
            pickle.dump(_computed(Work(task, position, ranges, known)), answered)
            answered.flush()
    except EmsError as error:
        pickle.dump(error, answered)


def _computed(work: Work) -> Returned:
    work.run()
    return work.returned()


def end_with(driver: int) -> None:
    """End this process when the pipe closes, without a thread or a handler that its function would meet.

    Where the system cannot do that, the job's keeper ends what a killed driver leaves.
    """
    if sys.platform == "linux":
        fcntl.fcntl(driver, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(driver, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(driver, fcntl.F_SETFL, os.O_ASYNC)
