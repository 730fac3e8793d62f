"""The workers of a command's sweep on this machine: processes of EMS's own, without Dask."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from ems.base.errors import EmsError
from ems.node.driver.points import Returned
from ems.node.driver.ranges import Range
from ems.node.driver.worker_process import Death, Limits, WorkerProcess
from ems.node.job import strays
from ems.node.programs import orphans
from ems.node.programs.worker import BOOT
from ems.spool.kinds import Kind

CLOSE_S = 5.0
T = TypeVar("T")
Request = tuple[Sequence[Range], Mapping[str, Kind]]
Outcome = Returned | Death | Exception


class _Slot(threading.Thread):
    """A worker process, started when it is needed, replaced when it died; and the thread that waits for its answers."""

    def __init__(self, address: str, pool: Pool[T], order_file: str, scratch: Path) -> None:
        super().__init__(name=address, daemon=True)
        self.address, self._pool = address, pool
        self._order_file, self._scratch = order_file, scratch
        self.requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self.process: WorkerProcess | None = None

    def run(self) -> None:
        while request := self.requests.get():
            self._pool.ready.put((self.address, self._outcome(request)))

    def _outcome(self, request: Request) -> Outcome:
        try:
            with self._pool.starting:
                self.process = self.process or WorkerProcess(self._order_file, Limits(), self._scratch, BOOT)
            found = self.process.compute(*request)
        except Exception as error:  # raised where the outcome is asked for
            return error
        if isinstance(found, Death):
            self._pool.end_orphans(self)
        return found


class Pool(Generic[T]):
    """Each worker computes one task of type T at a time. As `ems.node.driver.workers.Workers`."""

    def __init__(self, count: int, order_file: str, scratch: Path) -> None:
        """For the main process of a driver, which has no other children."""
        scratch.mkdir(parents=True, exist_ok=True)
        strays.adopt()
        self.starting = threading.Lock()
        self.ready: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        self._slots = {
            slot.address: slot for slot in (_Slot(f"worker {i:04d}", self, order_file, scratch) for i in range(count))
        }
        self._tasks: dict[str, T] = {}
        for slot in self._slots.values():
            slot.start()

    @property
    def count(self) -> int:
        """How many workers there are."""
        return len(self._slots)

    @property
    def tasks(self) -> list[T]:
        """Those that are being worked on."""
        return list(self._tasks.values())

    def free(self, needed_s: float = 0.0) -> list[str]:  # noqa: ARG002
        """Addresses of the workers that have nothing to do."""
        return sorted(self._slots.keys() - self._tasks.keys())

    def give(self, address: str, task: T, ranges: Sequence[Range], known: Mapping[str, Kind]) -> None:
        """Have the free worker at `address` compute points; `ended` will give `task` with the outcome."""
        self._tasks[address] = task
        self._slots[address].requests.put((ranges, known))

    def ended(self, timeout_s: float) -> Iterator[tuple[str, T, Returned | Death]]:
        """What has come back by now; waits for the first. EmsError if the program cannot be run."""
        with suppress(queue.Empty):
            while True:
                address, outcome = self.ready.get(timeout=timeout_s)
                timeout_s = 0.0
                task = self._tasks.pop(address)
                if isinstance(outcome, Exception):
                    raise outcome
                yield address, task, outcome

    def end_orphans(self, dead: _Slot) -> None:
        """After the death of a worker: end what its programs have left."""
        with self.starting:
            dead.process = None
            living = [slot.process.pid for slot in self._slots.values() if slot.process]
            orphans.end_others(living)

    def close(self) -> None:
        """End all; those at work at once, the others once they have ended their programs, within CLOSE_S."""
        processes = {address: slot.process for address, slot in self._slots.items() if slot.process}
        for address, process in processes.items():
            if address in self._tasks:
                process.kill("the run ends")
            else:
                process.ask_to_end()
        end_at = time.monotonic() + CLOSE_S
        for slot in self._slots.values():
            slot.requests.put(None)
        for slot in self._slots.values():
            slot.join(CLOSE_S)
        for process in processes.values():
            process.end(max(0.0, end_at - time.monotonic()))
        with suppress(EmsError):
            orphans.end_others(())
