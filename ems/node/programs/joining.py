"""Workers of a command's sweep that join from other machines: as those of a function's, in EMS's own Python."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from distributed import Worker

from ems.node.driver.joining import JoiningSlot, JoiningWorkers
from ems.node.driver.ranges import Range
from ems.node.driver.worker_process import Limits, WorkerProcess
from ems.node.driver.workers import Outcome
from ems.node.job import strays
from ems.node.programs import orphans
from ems.node.programs.order import ProgramOrder
from ems.node.programs.worker import BOOT
from ems.spool.kinds import Kind

T = TypeVar("T")
_living: set[int] = set()  # numbers of the worker processes that this process has started
_starting = threading.Lock()


class ProgramSlot(JoiningSlot):
    """What the programs of a worker process have left is ended with it."""

    def __init__(self, order_file: str) -> None:
        super().__init__(order_file, Limits())  # a worker watches over its programs itself

    def setup(self, worker: Worker) -> None:
        super().setup(worker)
        strays.adopt()

    def started(self) -> WorkerProcess:
        order_file, limits, scratch = self._arguments
        with _starting:
            process = WorkerProcess(order_file, limits, scratch, BOOT)
            _living.add(process.pid)
        return process

    def compute(self, ranges: Sequence[Range], known: Mapping[str, Kind]) -> Outcome:
        before = self.process
        outcome = super().compute(ranges, known)
        if self.process is None:
            self._end_orphans(before)
        return outcome

    async def teardown(self, worker: Worker) -> None:
        last = self.process
        await super().teardown(worker)
        self._end_orphans(last)

    def _end_orphans(self, dead: WorkerProcess | None) -> None:
        with _starting:
            if dead:
                _living.discard(dead.pid)
            orphans.end_others(_living)


def joining_workers(order: ProgramOrder, order_file: str) -> JoiningWorkers[T]:
    """For the main process of a driver. EmsError if they cannot be started."""
    here = order.workers if order.workers_here is None else order.workers_here
    scratch = Path(order.spool).with_name("dask")
    return JoiningWorkers(here, ProgramSlot(order_file), scratch, Path(order.joining), order.host)
