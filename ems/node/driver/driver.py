"""The driver of a sweep: computes the points that are not done on Dask workers and writes them into the spool.

It runs in the experiment's own environment: the standard library and dask.distributed, Python 3.9 or newer.

    python -c "import sys; sys.path.insert(0, ZIP); from ems.node.driver.driver import main; main(ORDER)"

ORDER is a JSON file, whose keys are the fields of `ems.node.driver.points.Order`. Exit codes: 0 when each point is in
the spool, with rows or as a mark; 3 when more than `max_failures` points failed; 143 after SIGTERM; others are faults.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import threading
import time
from array import array
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ems.base import aside
from ems.base.errors import EmsError
from ems.node.driver.platform import FILE, Platforms
from ems.node.driver.points import Order, Returned, compute, enter, read_order
from ems.node.driver.ranges import Backlog, BatchSize, Range, size, split
from ems.node.driver.typed_rows import Kind, joined
from ems.spool.batch import Batch, Mark
from ems.spool.encoding import encode
from ems.spool.folder import Spool
from ems.sweep import Sweep

if TYPE_CHECKING:
    from ems.node.driver.workers import Death, Workers

DONE, TOO_MANY_FAILURES, TERMINATED = 0, 3, 128 + signal.SIGTERM
SPOOL_BYTES = 256 * 10**6
TICK_S = 0.25
PROGRESS_S = 1.0
RATE_S = 10.0
LEAVE_S = 2.0
FULL_S = 1.0
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
SUSPECTS = 10  # parts into which a batch is cut whose worker died
DEATHS = 3  # of workers, each with this point alone, until the point is blamed: once may be bad luck
THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS")

log = logging.getLogger("ems.driver")


@dataclass(frozen=True)
class Part:
    """Points that one worker computes. `deaths`: how many workers died with just this point."""

    ranges: list[Range]
    deaths: int = 0


class Kinds:
    """What each column is so far, in the whole run."""

    def __init__(self, known: dict[str, Kind]) -> None:
        self.known = known

    def meet(self, found: dict[str, Kind]) -> bool:
        """Whether a batch with these columns goes with all before it; if so, they are known from now on."""
        spelled = {name.lower(): name for name in self.known}
        merged = {name: joined(self.known.get(name), kind) for name, kind in found.items()}
        if None in merged.values() or any(spelled.get(name.lower(), name) != name for name in found):
            return False
        self.known = {**self.known, **{name: kind for name, kind in merged.items() if kind}}
        return True


class ProgressFile:
    """Counts, and a file with them that is rewritten about once a second."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self.done = self.failed = 0
        self._past: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._written = 0.0

    def write(self, workers: int, running: int, *, now: bool = False) -> None:
        """Write the counts, points a second, `workers`, and `running` points; at most once a second unless `now`.

        A full disk is logged only; OSError otherwise.
        """
        if not now and time.monotonic() - self._written < PROGRESS_S:
            return
        self._written = time.monotonic()
        counts = {"done": self.done, "failed": self.failed, "rate": self._rate()}
        try:
            content = json.dumps({**counts, "workers": workers, "running": running})
            aside.write(self._file, content, lasting=False)  # a flush may take seconds, and the next one is near
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            log.warning("%s: progress is not written.", error)

    def _rate(self) -> float:
        """Points a second, lately."""
        self._past.append((self._written, self.done))
        while self._written - self._past[0][0] > RATE_S and len(self._past) > 2:
            self._past.popleft()
        began, before = self._past[0]
        return (self.done - before) / max(self._written - began, 1e-9)


class Driver:
    """`stopping` is set by SIGTERM."""

    def __init__(
        self, order_file: str, order: Order, workers: Workers[Part, Returned], stopping: threading.Event
    ) -> None:
        self._file, self._order, self._workers, self._stopping = order_file, order, workers, stopping
        self._sweep = Sweep.of(order.grids)
        self._spool = Spool(Path(order.spool))
        self._backlog = Backlog(Path(order.done).read_bytes(), len(self._sweep))
        self._suspects: deque[Part] = deque()
        self._kinds = Kinds({**order.types})
        self._batch_size = BatchSize()
        self._progress = ProgressFile(order.progress)
        self._platforms = Platforms(Path(order.progress).with_name(FILE))

    def run(self) -> int:
        """Compute what is not done; returns the exit code: 0, 3 after too many failures, 143 after SIGTERM."""
        log.info("%d points to compute on %d workers", self._backlog.left, self._order.workers)
        while not self._halt_code():
            self._hand_out()
            if not self._is_open():
                break
            self._take_in(TICK_S)
        code = self._halt_code() or DONE
        self._take_last()
        log.info("%d points done, %d of them failed", self._progress.done, self._progress.failed)
        return code

    def _is_open(self) -> bool:
        return bool(self._backlog.left or self._suspects or self._workers.tasks)

    def _halt_code(self) -> int:
        if self._stopping.is_set():
            return TERMINATED
        most = self._order.max_failures
        return TOO_MANY_FAILURES if most is not None and self._progress.failed > most else 0

    def _hand_out(self) -> None:
        if self._halt_code() or self._spool_is_full():
            return
        for address in self._workers.free():
            part = self._next()
            if part is None:
                return
            self._workers.give(address, part, compute, self._file, part.ranges, self._kinds.known)

    def _next(self) -> Part | None:
        if self._suspects:
            return self._suspects.popleft()
        ranges = self._backlog.take(self._batch_size.points(self._backlog.left, self._order.workers))
        return Part(ranges) if ranges else None

    def _take_in(self, timeout_s: float) -> None:
        for address, part, outcome in self._workers.ended(timeout_s):
            if isinstance(outcome, Returned):
                self._accept(address, part, outcome)
            else:
                self._suspect(part, outcome)
        running = sum(size(part.ranges) for part in self._workers.tasks)
        self._progress.write(self._workers.alive, running)

    def _accept(self, address: str, part: Part, returned: Returned) -> None:
        if returned.spoilt:
            self._workers.kill(address)
        if not self._kinds.meet(returned.kinds):
            self._backlog.give_back(part.ranges)  # computed again, knowing what others found meanwhile
            return
        self._platforms.meet(address, returned.platform)
        self._backlog.give_back(returned.rest)
        self._count(returned.points, returned.failed)
        self._batch_size.learn(returned.points, returned.seconds, len(returned.data))
        self._hand_out()  # the worker need not wait for the disk
        self._write(returned.data)

    def _suspect(self, part: Part, death: Death) -> None:
        count = size(part.ranges)
        log.warning("A worker died (%s) with %d points, which are tried again.", death.cause, count)
        if not death.at_work:
            self._suspects.append(part)
        elif count > 1:
            self._suspects.extend(Part(ranges) for ranges in split(part.ranges, SUSPECTS))
        elif part.deaths + 1 < DEATHS:
            self._suspects.append(Part(part.ranges, part.deaths + 1))
        else:
            self._blame(part.ranges[0][0], death)

    def _blame(self, point: int, death: Death) -> None:
        error = f"Killed its worker, {DEATHS} times when alone: {death.cause}."
        if self._order.point_timeout_s:
            error += "\nCode that never releases Python's interpreter is ended so after point_timeout_s, too."
        mark = Mark(point, "failed", self._sweep.parameters(point), error)
        self._write(encode(Batch(array("q"), array("q"), (), (point,), (mark,))))
        self._count(1, 1)

    def _count(self, points: int, failed: int) -> None:
        self._progress.done += points
        self._progress.failed += failed

    def _spool_is_full(self) -> bool:
        return self._spool.waiting_bytes() > SPOOL_BYTES

    def _write(self, data: bytes) -> None:
        """On a full disk, wait until what is stored has made room."""
        while True:
            try:
                return self._spool.write_encoded(data)
            except OSError as error:
                if error.errno not in NO_ROOM or self._stopping.wait(FULL_S):
                    raise
                log.warning("%s: waiting for room.", error)

    def _take_last(self) -> None:
        """Of a run that stops early: what comes back within seconds."""
        leave_at = time.monotonic() + LEAVE_S
        while self._workers.tasks and time.monotonic() < leave_at:
            self._take_in(TICK_S)
        self._progress.write(self._workers.alive, 0, now=True)


def main(order_file: str) -> NoReturn:
    """Carry out the order in `order_file`, and exit with the code that the module's docstring lists."""
    _log_to_stderr()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    try:
        code = _drive(order_file, stopping)
    except EmsError as error:
        log.error("%s", error)
        code = 1
    sys.exit(code)


def _log_to_stderr() -> None:
    """Of the driver alone: Dask logs more than anybody wants to read."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("ems: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _drive(order_file: str, stopping: threading.Event) -> int:
    order = read_order(order_file)
    # Before anything loads numpy: its BLAS reads them once
    os.environ.update({f"{library}_NUM_THREADS": str(order.threads) for library in THREADS})
    os.environ["VECLIB_MAXIMUM_THREADS"] = str(order.threads)
    enter(order)
    try:
        from ems.node.driver.workers import Workers
    except ImportError as error:
        raise EmsError(
            f"A sweep needs dask.distributed: {error}.",
            "Add `dask[distributed]` to the environment's requirements.in and lock it again.",
        ) from error
    workers = Workers[Part, Returned](order.workers, order.memory_mb, Path(order.spool).with_name("dask"))
    try:
        return Driver(order_file, order, workers, stopping).run()
    finally:
        workers.close()
