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
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError as Cancelled
from pathlib import Path
from typing import Any, TypeVar

import dask
from distributed import Future, Security, Worker
from distributed.core import Status
from distributed.scheduler import KilledWorker

from ems.node.driver.points import CERTIFICATE, KEY, Gone
from ems.node.driver.ranges import Range
from ems.node.driver.worker_process import Death, Limits
from ems.node.driver.workers import CONFIG, DaskWorkers, Outcome, Slot, slot_of
from ems.spool.kinds import Kind

SCHEDULER = "scheduler.json"
GRACE_S = 25.0  # in which a worker that was told to end finishes what it computes
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
        self.leaving = False

    def setup(self, worker: Worker) -> None:
        """On its machine."""
        order_file, limits, _ = self._arguments
        self._arguments = order_file, limits, Path(worker.local_directory)
        with tempfile.TemporaryFile(dir=worker.local_directory) as shared:  # for what a set-up makes
            self._shared = os.dup(shared.fileno())

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        """The driver is gone, or ends."""
        if self.process:
            self.process.kill("the run ends")
        os.close(self._shared)

    def compute(self, ranges: Sequence[Range], known: Mapping[str, Kind]) -> Outcome:
        """As `Slot.compute`; Gone where a signal to the whole job ended the process."""
        outcome = super().compute(ranges, known)
        if isinstance(outcome, Death) and "SIGTERM" in outcome.cause:
            time.sleep(SIGNALLED_S)
        return Gone("it was told to end") if isinstance(outcome, Death) and self.leaving else outcome


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
        """A task whose worker left before it was begun would wait for it for ever."""
        for address in self._futures.keys() - self._members().keys():
            if not self._futures[address].done():
                self._futures[address].cancel()

    def _outcome(self, future: Future[Outcome]) -> Outcome:
        try:
            return super()._outcome(future)
        except (KilledWorker, Cancelled, asyncio.CancelledError) as error:
            return Gone(f"its worker was lost ({type(error).__name__})")


def _seconds(name: str) -> float:
    """Of a worker's name, JOB-NUMBER/SECONDS: how long it lives from when it joins; 0: as long as the driver."""
    text = name.rpartition("/")[2]
    return float(text) if "/" in name and text.isdecimal() else 0.0


def main(folder: str, name: str, left_s: str) -> None:
    """Join the driver whose key lies in `folder`, and work for it until it ends or SIGTERM comes.

    `name`: of the worker; `left_s`: for how long it lives, in whole seconds; 0: as long as the driver.
    """
    dask.config.set(JOINED)
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
