"""The workers of a sweep on this machine: a Dask cluster within the driver, of which each worker has a process.

Each worker is given one batch at a time, so no batch waits behind another. Dask's messages never leave the driver, so
that nobody else on the machine can send one: what Dask listens on, on loopback, serves nothing.
"""

from __future__ import annotations

import asyncio
import os
import queue
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import dask
from distributed import Client, LocalCluster, Worker, WorkerPlugin, batched, get_worker
from distributed import Future as DaskFuture
from distributed import TimeoutError as DaskTimeout

from ems.base.errors import EmsError
from ems.node.driver.points import Gone, Returned
from ems.node.driver.ranges import Range
from ems.node.driver.worker_process import Death, Limits, WorkerProcess
from ems.spool.kinds import Kind

POLL_S = 0.5
CLOSE_S = 5.0
STOPPED_POLLS = 20  # not a time: whoever sleeps together with the workers sees no polls go by
STOPPED = "it had been stopped, as by SIGSTOP, and was ended"
NOWHERE = "127.0.0.1:0"  # a free port of loopback
CONFIG: dict[str, Any] = {
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    # What Dask measures of itself took half of the driver's time beside dear points
    "distributed.admin.tick.interval": "1s",  # warns of an unresponsive loop from 3 s on
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.client.scheduler-info-interval": "60s",
}
T = TypeVar("T")
Outcome = Returned | Death | Gone


def configure(config: Mapping[str, Any]) -> None:
    """Have Dask work so in this process, and go by a clock that nobody sets: its messages wait for a time of day, which
    a clock that is set back by an hour puts off for an hour."""
    dask.config.set(config)
    batched.time = time.monotonic  # type: ignore[attr-defined]
    batched.IOLoop.time = staticmethod(time.monotonic)  # type: ignore[attr-defined, method-assign, assignment]


class Slot(WorkerPlugin):
    """What each of Dask's workers has: a worker process, started when it is needed, and replaced when it died."""

    name = "ems"

    def __init__(self, order_file: str, limits: Limits, scratch: Path, shared: int) -> None:
        self._arguments, self._shared = (order_file, limits, scratch), shared
        self.process: WorkerProcess | None = None

    def started(self) -> WorkerProcess:
        """A new worker process."""
        return WorkerProcess(*self._arguments, shared=self._shared)

    def compute(self, ranges: Sequence[Range], known: Mapping[str, Kind]) -> Outcome:
        """As `WorkerProcess.compute`."""
        self.process = self.process or self.started()
        outcome = self.process.compute(ranges, known)
        if isinstance(outcome, Death):
            self.process = None
        return outcome


def compute(ranges: Sequence[Range], known: Mapping[str, Kind]) -> Outcome:
    """A task of Dask: as `WorkerProcess.compute`, by the process of the worker that it is given to."""
    return slot_of(get_worker()).compute(ranges, known)


async def _fetched(computed: DaskFuture[Outcome]) -> Outcome:
    """From the worker that has it: if that is lost meanwhile, Dask waits for ever, here for one that nobody awaits."""
    outcome: Outcome = await computed
    return outcome


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


class DaskWorkers(Generic[T]):
    """Each of them computes one task of type T at a time. Whoever inherits says which there are."""

    def __init__(self, count: int, slot: Slot, scratch: Path, config: Mapping[str, Any], **cluster: Any) -> None:
        """`count` of them in this process; `cluster`: what a LocalCluster is told beside.

        EmsError if they cannot be started.
        """
        configure(config)
        warnings.filterwarnings("ignore", "Couldn't detect a suitable IP address")  # none is needed
        scratch.mkdir(parents=True, exist_ok=True)
        told = {**cluster, "scheduler_kwargs": {"dashboard_address": NOWHERE, **cluster.get("scheduler_kwargs", {})}}
        try:
            self._cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=False,
                dashboard_address=None,
                worker_dashboard_address=NOWHERE,
                memory_limit=None,
                local_directory=str(scratch),
                silence_logs="CRITICAL",
                **told,
            )
            self._client = Client(self._cluster, set_as_default=False, security=cluster.get("security"))
            self._client.register_plugin(slot)
            self._loop: asyncio.AbstractEventLoop = self._client.sync(_loop)
        except (OSError, RuntimeError, DaskTimeout) as error:
            raise EmsError(f"The {count} workers could not be started: {error}") from error
        self._tasks: dict[str, T] = {}  # by the worker's address
        self._outcomes: dict[str, Future[Outcome]] = {}
        self._ready: queue.Queue[tuple[str, Future[Outcome]]] = queue.Queue()
        self._polled = -POLL_S
        self._still = 0  # polls in a row

    @property
    def tasks(self) -> list[T]:
        """Those that are being worked on."""
        return list(self._tasks.values())

    def give(self, address: str, task: T, ranges: Sequence[Range], known: Mapping[str, Kind]) -> None:
        """Have the free worker at `address` compute points; `ended` will give `task` with the outcome."""
        computed = self._client.submit(compute, ranges, known, workers=[address], pure=False)
        outcome = asyncio.run_coroutine_threadsafe(_fetched(computed), self._loop)
        self._tasks[address], self._outcomes[address] = task, outcome
        outcome.add_done_callback(lambda done: self._ready.put((address, done)))

    def ended(self, timeout_s: float) -> Iterator[tuple[str, T, Outcome]]:
        """What has come back by now; waits for the first. EmsError if the function cannot be imported or set up."""
        self._look()
        with suppress(queue.Empty):
            while True:
                address, outcome = self._ready.get(timeout=timeout_s)
                timeout_s = 0.0
                task = self._tasks.pop(address)
                del self._outcomes[address]
                yield address, task, self._outcome(outcome)

    def _look(self) -> None:
        """End stopped processes (SIGSTOP) once they have been all that there is to wait for, for some seconds.

        Until then nothing is lost by waiting, and much may be, if a long computation is to be continued.
        """
        if time.monotonic() - self._polled < POLL_S:
            return
        self._polled = time.monotonic()
        self._still = self._still + 1 if self._tasks and self._all_stopped() else 0
        if self._still > STOPPED_POLLS:
            self._end_stopped()
            self._still = 0

    def _all_stopped(self) -> bool:
        """Whether the processes of all workers that have a task are stopped."""
        raise NotImplementedError

    def _end_stopped(self) -> None:
        """End them."""
        raise NotImplementedError

    def _outcome(self, done: Future[Outcome]) -> Outcome:
        return done.result()

    def close(self) -> None:
        """End all."""
        with suppress(DaskTimeout, OSError):  # what is left then ends with this process
            self._client.close(timeout=1)
            self._cluster.close(timeout=CLOSE_S)


class Workers(DaskWorkers[T]):
    """Those of this machine."""

    def __init__(self, count: int, order_file: str, limits: Limits, scratch: Path) -> None:
        """EmsError if they cannot be started."""
        scratch.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch) as shared:  # for what a set-up makes once for all
            self._shared = os.dup(shared.fileno())
        super().__init__(count, Slot(order_file, limits, scratch, self._shared), scratch, CONFIG)
        self._slots = {worker.address: slot_of(worker) for worker in self._cluster.workers.values()}

    @property
    def count(self) -> int:
        """How many workers there are."""
        return len(self._slots)

    def free(self, needed_s: float = 0.0) -> list[str]:  # noqa: ARG002
        """Addresses of the workers that have nothing to do."""
        return sorted(self._slots.keys() - self._tasks.keys())

    def close(self) -> None:
        """End all; those at work at once, the others as they like within CLOSE_S."""
        idle = [self._slots[address].process for address in self.free()]
        for process in self._busy():
            process.kill("the run ends")
        for process in filter(None, idle):
            process.ask_to_end()
        end_at = time.monotonic() + CLOSE_S
        for process in filter(None, idle):
            process.end(max(0.0, end_at - time.monotonic()))
        super().close()
        os.close(self._shared)

    def _busy(self) -> list[WorkerProcess]:
        """Those at work."""
        return [process for address in self._tasks if (process := self._slots[address].process)]

    def _all_stopped(self) -> bool:
        busy = self._busy()
        return bool(busy) and all(process.is_stopped() for process in busy)

    def _end_stopped(self) -> None:
        for process in filter(WorkerProcess.is_stopped, self._busy()):
            process.kill(STOPPED)


def slot_of(worker: Worker) -> Slot:
    """What EMS has given a worker of Dask's."""
    found = worker.plugins[Slot.name]
    assert isinstance(found, Slot)
    return found
