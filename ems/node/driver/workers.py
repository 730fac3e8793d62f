"""The worker processes of a sweep on this machine: a Dask LocalCluster that is given one batch per worker at a time.

So each death has one possible cause, and no batch waits behind another. Only loopback is listened on.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import dask
import psutil
from distributed import Client, Future, KilledWorker, LocalCluster, Nanny, WorkerPlugin
from distributed import TimeoutError as DaskTimeout

from ems.base.errors import EmsError

POLL_S = 0.5
FETCH_S = 2.0
DEATH_KNOWN_S = 1.0
CLOSE_S = 5.0
NO_WORKER_S = 120.0
STOPPED_POLLS = 20  # not a time: whoever sleeps together with the workers sees no polls go by
MEMORY_EVENTS = "worker-restart-memory"
LOOPBACK = "127.0.0.1"
CONFIG: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,  # whom to blame for a death is found out here
    "distributed.scheduler.worker-ttl": None,  # code that holds the interpreter for minutes is not dead
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.deploy.lost-worker-timeout": "500 weeks",  # else a nanny is dropped whose worker starts slowly
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
}
T = TypeVar("T")
R = TypeVar("R")


class _Watched(Nanny):
    """Notes how its worker's process ended."""

    exit_codes: dict[str, int] = {}  # noqa: RUF012  (by address, of all)
    restarting = True

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        self.exit_codes[self.worker_address] = exitcode
        if self.restarting:
            super()._on_worker_exit_sync(exitcode)  # type: ignore[no-untyped-call]


class _Patient(WorkerPlugin):
    """Of the SIGTERM that ends the job, which reaches all its processes, the driver alone takes notice."""

    def setup(self, worker: object) -> None:  # noqa: ARG002
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@dataclass(frozen=True)
class Death:
    """The worker died. `at_work`: while it computed the batch, not before or after."""

    cause: str
    at_work: bool


class Workers(Generic[T, R]):
    """Tasks of type T, of which each gives an R."""

    def __init__(self, count: int, memory_mb: int | None, scratch: Path) -> None:
        """Returns when all have started. EmsError if they do not."""
        dask.config.set(CONFIG)
        try:
            self._cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                worker_class=_Watched,
                host=LOOPBACK,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": f"{LOOPBACK}:0"},  # a free port instead of a warning
                memory_limit=memory_mb * 10**6 if memory_mb else None,
                local_directory=str(scratch),
                silence_logs="CRITICAL",
            )
            self._client = Client(self._cluster, set_as_default=False)
            self._client.register_plugin(_Patient())
        except (OSError, RuntimeError, DaskTimeout) as error:
            raise EmsError(f"The {count} workers could not be started: {error}") from error
        self._memory_mb = memory_mb
        self._tasks: dict[str, tuple[T, Future[R]]] = {}  # by the worker's address
        self._ready: queue.Queue[tuple[str, Future[R]]] = queue.Queue()
        self._alive: set[str] = set()
        self._missing: set[str] = set()
        self._leaving: set[str] = set()
        self._polled = -POLL_S
        self._seen = time.monotonic()
        self._still = 0  # polls in a row
        self._let_down: set[str] = set()  # workers that were stopped, and then ended here

    @property
    def alive(self) -> int:
        """How many workers there are now."""
        return len(self._alive)

    @property
    def tasks(self) -> list[T]:
        """Those that are being worked on."""
        return [task for task, _ in self._tasks.values()]

    def free(self) -> list[str]:
        """Addresses of the workers that have nothing to do. EmsError if all died and none comes back."""
        self._poll()
        if time.monotonic() - self._seen > NO_WORKER_S:
            raise EmsError("No worker could be started again.", "The end of job.log shows why.")
        return sorted(self._alive - self._tasks.keys() - self._leaving)

    def give(self, address: str, task: T, function: Callable[..., R], *arguments: Any) -> None:
        """Have the free worker at `address` call `function(*arguments)`; `ended` will give `task` with the result."""
        future = self._client.submit(function, *arguments, workers=[address], pure=False)
        self._tasks[address] = (task, future)
        future.add_done_callback(lambda done: self._ready.put((address, done)))

    def ended(self, timeout_s: float) -> Iterator[tuple[str, T, R | Death]]:
        """What has come back by now; waits for the first. An exception of a task is raised."""
        with contextlib.suppress(queue.Empty):
            while True:
                address, future = self._ready.get(timeout=timeout_s)
                timeout_s = 0.0
                task, current = self._tasks.get(address, (None, None))
                if task is not None and current is future:
                    result = self._result(address, future)
                    del self._tasks[address]
                    if isinstance(result, Death):
                        self._alive.discard(address)
                    yield address, task, result
        self._poll()
        for address in self._missing & self._tasks.keys():
            task, _ = self._tasks.pop(address)
            yield address, task, self._death(address, at_work=False)

    def kill(self, address: str) -> None:
        """End a worker that still runs what cannot be stopped otherwise; another one takes its place."""
        self._leaving.add(address)
        self._client.run(_end_process, workers=[address], wait=False, on_error="ignore")

    def close(self) -> None:
        """End all, in the midst of what they do."""
        _Watched.restarting = False
        busy = self._tasks.keys() | self._leaving
        self._end(n for n in self._cluster.workers.values() if n.worker_address in busy or _is_stopped(n))
        with contextlib.suppress(DaskTimeout):  # what is left then ends with this process
            self._client.close(timeout=1)
            self._cluster.close(timeout=CLOSE_S)

    def _end(self, nannies: Iterable[Nanny]) -> None:
        for nanny in nannies:
            if nanny.pid:
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(nanny.pid, signal.SIGKILL)

    def _poll(self) -> None:
        now = time.monotonic()
        if now - self._polled < POLL_S:
            return
        self._polled = now
        before, self._alive = self._alive, set(self._client.nthreads())
        self._seen = now if self._alive else self._seen
        self._missing = self._tasks.keys() - self._alive - before  # twice: its end may be on the way to us
        self._leaving &= self._alive
        self._end_stopped()

    def _end_stopped(self) -> None:
        """End stopped workers (SIGSTOP) once they have been all that there is to wait for, for some seconds.

        Until then nothing is lost by waiting, and much may be, if a long computation is to be continued.
        """
        busy = self._tasks.keys() | self._leaving
        waited_for = [nanny for nanny in self._cluster.workers.values() if nanny.worker_address in busy]
        self._still = self._still + 1 if waited_for and all(map(_is_stopped, waited_for)) else 0
        if self._still > STOPPED_POLLS:
            self._let_down |= {nanny.worker_address for nanny in waited_for}
            self._end(waited_for)

    def _result(self, address: str, future: Future[R]) -> R | Death:
        while True:
            try:
                result: R = future.result(timeout=FETCH_S)
                return result
            except KilledWorker:
                return self._death(address, at_work=True)
            except DaskTimeout:
                if address not in self._client.nthreads():
                    return self._death(address, at_work=False)

    def _death(self, address: str, *, at_work: bool) -> Death:
        if address in self._let_down:
            return Death("it had been stopped, as by SIGSTOP, and was ended", at_work=False)
        return Death(self._cause(address), at_work)

    def _cause(self, address: str) -> str:
        """As far as it can be found out."""
        if any(event.get("worker") == address for _, event in self._client.get_events(MEMORY_EVENTS)):
            return f"it took more than memory_mb: {self._memory_mb}"
        give_up_at = time.monotonic() + DEATH_KNOWN_S
        while address not in _Watched.exit_codes and time.monotonic() < give_up_at:
            time.sleep(0.01)
        code = _Watched.exit_codes.get(address)
        if code is None:
            return "for an unknown reason"
        if code >= 0:
            return f"exit code {code}"
        name = f"signal {-code} ({signal.Signals(-code).name})"
        return f"{name}: often the machine ran out of memory" if code == -signal.SIGKILL else name


def _is_stopped(nanny: Nanny) -> bool:
    try:
        return bool(nanny.pid) and psutil.Process(nanny.pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:  # its death comes to us in another way
        return False


async def _end_process() -> None:  # asynchronous: or else Dask would wait for its answer
    os.kill(os.getpid(), signal.SIGKILL)
