"""Workers of a sweep that join from other machines, beside those of the driver's own.

They are processes of Dask's, which find the driver by a file that the user alone can read, and speak TLS with it: who
has not the key in the same folder is refused. Each has a worker process as those of this machine, so that limits,
deaths and failures are the same. They come and go as the machines' scheduler likes: one that is lost, or is told to
end, is no fault of the points that it had, and others compute them.

A worker's end, on its machine:

    python -c "import sys; sys.path[0] = ZIP; from ems.node.driver.joining import main; main(FOLDER, NAME, SECONDS)"
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError as Cancelled
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from distributed import Security, Worker
from distributed.core import Status
from distributed.scheduler import KilledWorker

from ems.base.threads import Threads
from ems.node.driver.points import CERTIFICATE, KEY, SCHEDULER, Gone, Returned, read_order
from ems.node.driver.ranges import Range, cut
from ems.node.driver.worker_process import Death, Limits
from ems.node.driver.workers import CLOSE_S, CONFIG, STOPPED, DaskWorkers, Outcome, Slot, configure, slot_of
from ems.node.job import carried
from ems.spool.kinds import Kind

ENDING_S = CLOSE_S - 1.0  # that an idle worker process has for itself when the run ends
LOOK_S = 0.05
STOPPED_METRIC = "ems_stopped"  # of a worker: whether its process is at work and stopped
GRACE_S = 20.0  # in which a worker that was told to end finishes what it computes
SIGNALLED_S = 2.0  # in which a signal that has ended a worker process reaches the worker, if it was meant for the job
DEATH_S = 120.0  # after which a worker that does not find the driver ends
JOINED: dict[str, Any] = {
    **CONFIG,
    "distributed.comm.require-encryption": True,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}
T = TypeVar("T")


def security(folder: Path) -> Security:
    """By the key and the certificate in a folder, which both ends have."""
    of = {"cert": str(folder / CERTIFICATE), "key": str(folder / KEY)}
    roles = {f"tls_{role}_{what}": of[what] for role in ("scheduler", "worker", "client") for what in of}
    return Security(tls_ca_file=of["cert"], require_encryption=True, **roles)


class JoiningSlot(Slot):
    """Of a worker that may be told to end: what it computes is finished, if that takes less than GRACE_S."""

    def __init__(self, order_file: str, limits: Limits) -> None:
        super().__init__(order_file, limits, Path(), -1)
        self.leaving = self._busy = False

    def setup(self, worker: Worker) -> None:
        """On its machine."""
        order_file, limits, _ = self._arguments
        self._arguments = order_file, limits, Path(worker.local_directory)
        self._order = read_order(order_file)
        with tempfile.TemporaryFile(dir=worker.local_directory) as shared:  # for what a set-up makes
            self._shared = os.dup(shared.fileno())
        worker.metrics[STOPPED_METRIC] = lambda _: self._is_stopped()

    def _is_stopped(self) -> bool:
        return self._busy and self.process is not None and self.process.is_stopped()

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        """The driver is gone, or ends; what is at work ends at once, what is idle as it likes within ENDING_S."""
        if self.process and self._busy:
            self.process.kill("the run ends")
        elif self.process:
            self.process.ask_to_end()
            await asyncio.to_thread(self.process.end, ENDING_S)
        os.close(self._shared)

    def compute(self, ranges: Sequence[Range], known: Mapping[str, Kind]) -> Outcome:
        """As `Slot.compute`; Gone where a signal to the whole job ended the process."""
        self._busy = True
        outcome = super().compute(ranges, known)
        self._busy = False
        if isinstance(outcome, Death) and "SIGTERM" in outcome.cause:
            time.sleep(SIGNALLED_S)
        if isinstance(outcome, Returned) and self._order.carried:
            return self._with_outputs(outcome, ranges)
        return Gone("it was told to end") if isinstance(outcome, Death) and self.leaving else outcome

    def _with_outputs(self, returned: Returned, ranges: Sequence[Range]) -> Returned:
        """Once what the points left is stored: the driver's machine does not see this one's disk."""
        points = (point for first, last in cut(ranges, returned.points)[0] for point in range(first, last))
        found = carried.awaited(Path(self._order.outputs), Path(self._order.carried), points)
        return replace(returned, outputs=found)


async def end_stopped(dask_worker: Worker) -> None:
    """Runs on a worker: end its process, if it is stopped."""
    if (process := slot_of(dask_worker).process) and process.is_stopped():
        process.kill(STOPPED)


async def leave(dask_worker: Worker) -> None:
    """Runs on a worker: have it close once this is answered."""
    asyncio.get_running_loop().call_later(0, lambda: asyncio.ensure_future(dask_worker.close(reason="the run ends")))


class JoiningWorkers(DaskWorkers[T]):
    """Some of this machine, and all that have joined, which come and go."""

    def __init__(self, count: int, slot: JoiningSlot, scratch: Path, folder: Path, host: str) -> None:
        """`count` of them on this machine. `folder`: has the key; `host`: where others reach this machine.

        EmsError if they cannot be started.
        """
        file = folder / SCHEDULER
        file.unlink(missing_ok=True)
        told = {"host": host or None, "protocol": "tls://", "scheduler_kwargs": {"scheduler_file": str(file)}}
        super().__init__(count, slot, scratch, JOINED, security=security(folder), **told)
        self._ends: dict[str, float] = {}  # monotonic, of those whose jobs have a time limit

    @property
    def count(self) -> int:
        """How many workers there are just now."""
        return len(self._running())

    def free(self, needed_s: float = 0.0) -> list[str]:
        """Addresses of the workers that have nothing to do, and will live for `needed_s` more."""
        now = time.monotonic()
        running = self._running()
        for address, left_s in running.items():
            if left_s and address not in self._ends:
                self._ends[address] = now + left_s
        return sorted(
            address
            for address in running.keys() - self._tasks.keys()
            if self._ends.get(address, now + needed_s) >= now + needed_s
        )

    def _members(self) -> dict[str, Any]:
        """By address, all that have joined; copied at once, as another thread changes them."""
        assert self._cluster.scheduler
        return dict(self._cluster.scheduler.workers.copy())

    def _running(self) -> dict[str, float]:
        """Address, and the seconds that a worker had when it joined (0: no limit), of those that take work."""
        workers = self._members()
        return {
            address: _seconds(str(state.name)) for address, state in workers.items() if state.status == Status.running
        }

    def _look(self) -> None:
        """Also: a task whose worker left before it began, or before it was asked for what it had computed, would wait
        for it for ever."""
        super()._look()
        for address in self._outcomes.keys() - self._members().keys():
            self._outcomes[address].cancel()

    def _outcome(self, done: Future[Outcome]) -> Outcome:
        try:
            return super()._outcome(done)
        except (KilledWorker, Cancelled, asyncio.CancelledError) as error:
            return Gone(f"its worker was lost ({type(error).__name__})")

    def _all_stopped(self) -> bool:
        members = self._members()
        return all(address in members and members[address].metrics.get(STOPPED_METRIC) for address in self._tasks)

    def _end_stopped(self) -> None:
        self._tell(end_stopped, list(self._tasks))

    def _tell(self, what: Callable[[Worker], Awaitable[None]], addresses: Sequence[str]) -> None:
        """Not awaited: one that has fallen silent never answers."""
        Threads().submit(self._client.run, what, workers=addresses, wait=False, on_error="return")

    def close(self) -> None:
        """End all; those of other machines first, as their jobs are cancelled when this process ends."""
        here = {worker.address for worker in self._cluster.workers.values()}
        joined = self._members().keys() - here
        if joined:
            self._tell(leave, sorted(joined))
        give_up_at = time.monotonic() + CLOSE_S
        while joined & self._members().keys() and time.monotonic() < give_up_at:
            time.sleep(LOOK_S)
        super().close()


def _seconds(name: str) -> float:
    """Of a worker's name, JOB-NUMBER/SECONDS: how long it lives from when it joins; 0: as long as the driver."""
    text = name.rpartition("/")[2]
    return float(text) if "/" in name and text.isdecimal() else 0.0


def main(folder: str, name: str, left_s: str) -> None:
    """Join the driver whose key lies in `folder`, and work for it until it ends or SIGTERM comes.

    `name`: of the worker; `left_s`: for how long it lives, in whole seconds; 0: as long as the driver.
    """
    configure(JOINED)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it prints is in the log of the job
    os.umask(0o077)
    with tempfile.TemporaryDirectory(prefix="ems-", ignore_cleanup_errors=True) as scratch:
        asyncio.run(_work(Path(folder), name, left_s, scratch))


async def _work(folder: Path, name: str, left_s: str, scratch: str) -> None:
    arguments: dict[str, Any] = {
        "scheduler_file": str(folder / SCHEDULER),
        "nthreads": 1,
        "name": f"{name}/{left_s}",
        "security": security(folder),
        "death_timeout": DEATH_S,
        "memory_limit": 0,
        "local_directory": scratch,
        "dashboard": False,
        "heartbeat_interval": "5s",
    }
    async with Worker(**arguments) as worker:
        leaving = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGUSR1):
            asyncio.get_running_loop().add_signal_handler(number, lambda: _leave(worker, leaving))
        ended, asked = asyncio.ensure_future(worker.finished()), asyncio.ensure_future(leaving.wait())
        await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
        give_up_at = time.monotonic() + GRACE_S
        while leaving.is_set() and (worker.state.executing_count or worker.data) and time.monotonic() < give_up_at:
            await asyncio.sleep(0.1)


def _leave(worker: Worker, leaving: asyncio.Event) -> None:
    """Take no more, and finish what is under way."""
    slot = slot_of(worker)
    assert isinstance(slot, JoiningSlot)
    slot.leaving = True
    worker.status = Status.paused
    leaving.set()
