"""A worker process of a command's sweep: it runs the programs of its points, one at a time, in EMS's own Python."""

from __future__ import annotations

import os
import pickle
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO

from ems.base.errors import EmsError, refused
from ems.node.driver.points import Returned, Task
from ems.node.driver.position import IDLE, Position
from ems.node.driver.ranges import Range
from ems.node.driver.worker import end_with
from ems.node.job import strays
from ems.node.programs import order as orders
from ems.node.programs import orphans
from ems.node.programs.lines_work import LinesWork
from ems.node.programs.process_work import ProcessWork
from ems.node.programs.site import Site
from ems.node.programs.talk import Talk
from ems.spool.kinds import Kind
from ems.sweep import Sweep

BOOT = """\
import sys
sys.path[0], *arguments = sys.argv[1:]
del sys.argv[1:]
from ems.node.programs.worker import serve
serve(arguments[0], *map(int, arguments[1:]))
"""
Compute = Callable[[Sequence[Range], Mapping[str, Kind]], Returned]


def serve(order_file: str, requests: int, answers: int, position: int, driver: int) -> None:
    """As `ems.node.driver.worker.serve`, for an order of programs."""
    os.setpgid(0, 0)
    for descriptor in (requests, answers, position, driver):
        os.set_inheritable(descriptor, False)
    end_with(driver)
    strays.adopt()
    with os.fdopen(requests, "rb") as asked, os.fdopen(answers, "wb") as answered, suppress(EOFError, BrokenPipeError):
        try:
            _answer_all(order_file, Position(position), asked, answered)  # until the driver closes the pipe
        except EmsError as error:
            pickle.dump(error, answered)
        except OSError as error:
            pickle.dump(refused(error), answered)
        finally:
            orphans.end_all()


def _answer_all(order_file: str, position: Position, asked: BinaryIO, answered: BinaryIO) -> None:
    compute, close = _computing(order_file, position)
    try:
        while True:
            position.set(IDLE)
            ranges, known = pickle.load(asked)
            pickle.dump(compute(ranges, known), answered)
            answered.flush()
    finally:
        close()


def _computing(order_file: str, position: Position) -> tuple[Compute, Callable[[], None]]:
    """What computes points, and what is to be done at last."""
    order = orders.read(order_file)
    site = Site(order, f"worker-{platform.node()}-{os.getpid()}")  # of one machine among many
    folder = os.open(site.work, os.O_RDONLY)
    task = Task(
        _nothing, Sweep.of(order.grids), order.retries, folder, order.rounds, {}, order.keeps_rows, site.outputs
    )

    talk = Talk(site)
    stays = order.protocol == "lines"

    def compute(ranges: Sequence[Range], known: Mapping[str, Kind]) -> Returned:
        nonlocal task
        task = task.reaching(ranges)
        arguments = position, ranges, known
        work = LinesWork(task, site, talk, *arguments) if stays else ProcessWork(task, site, *arguments)
        work.run()
        return work.returned()

    return compute, talk.close


def _nothing() -> None:
    """Instead of a function."""
