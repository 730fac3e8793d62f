"""The driver of a sweep: computes the points that are not done on Dask workers and writes them into the spool.

It runs in the experiment's own environment: the standard library and dask.distributed, Python 3.9 or newer.

    python -c "import sys; sys.path[0] = ZIP; from ems.node.driver.driver import main; main(ORDER)"

ORDER is a JSON file, whose keys are the fields of `ems.node.driver.points.Order`. Exit codes: 0 when each point is in
the spool, with rows or as a mark, and the agent has no further round; 3 when more than `max_failures` points failed;
143 after SIGTERM; others are faults.
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
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from ems.base import aside
from ems.base.errors import EmsError
from ems.node.driver import measured
from ems.node.driver.measured import Measure
from ems.node.driver.platform import FILE, Platforms
from ems.node.driver.points import Gone, Order, Returned, read_order
from ems.node.driver.position import GATHERING, LOADING, SETTING_UP
from ems.node.driver.proposer import SAME, Surroundings
from ems.node.driver.ranges import Backlog, BatchSize, Range, size, split, without
from ems.node.driver.rounds import Rounds
from ems.node.job import carried
from ems.spool.batch import Batch, Mark
from ems.spool.encoding import encode
from ems.spool.folder import Spool
from ems.spool.kinds import Kind, joined
from ems.sweep import Sweep

if TYPE_CHECKING:
    from ems.node.driver.worker_process import Death

DONE, TOO_MANY_FAILURES, TERMINATED = 0, 3, 128 + signal.SIGTERM
SPOOL_BYTES = 256 * 10**6
TICK_S = 0.25
PROGRESS_S = 1.0
RATE_S = 10.0
LEAVE_S = 2.0
FULL_S = 1.0
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
SUSPECTS = 10  # parts into which a batch is cut whose worker died as it put the rows together
DEATHS = 3  # of workers at a point until it is blamed: once may be bad luck
THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS")

log = logging.getLogger("ems.driver")


@dataclass(frozen=True)
class Part:
    """Points that one worker computes. `deaths`: of a single point, how many workers have died at it."""

    ranges: list[Range]
    deaths: int = 0


class Team(Protocol):
    """Workers, each of which computes a part at a time: those of `ems.node.driver.workers`, or ones like them."""

    @property
    def count(self) -> int:
        """How many workers there are."""

    @property
    def tasks(self) -> list[Part]:
        """Those that are being worked on."""

    def free(self, needed_s: float = 0.0) -> list[str]:
        """Addresses of the workers that have nothing to do, and are sure to live for `needed_s` more."""

    def give(self, address: str, task: Part, ranges: Sequence[Range], known: Mapping[str, Kind]) -> None:
        """Have the free worker at `address` compute points; `ended` will give `task` with the outcome."""

    def ended(self, timeout_s: float) -> Iterator[tuple[str, Part, Returned | Death | Gone]]:
        """What has come back by now; waits for the first."""


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

    def __init__(self, order: Order, workers: Team, stopping: threading.Event, proposers: Surroundings = SAME) -> None:
        """`proposers`: in what the processes run that propose rounds."""
        self._order, self._workers, self._stopping = order, workers, stopping
        self._sweep = Sweep.of(order.grids)
        self._spool = Spool(Path(order.spool))
        self._backlog = Backlog(Path(order.done).read_bytes(), len(self._sweep), order.shuffle)
        self._suspects: deque[Part] = deque()
        self._kinds = Kinds(order.types)
        self._batch_size = BatchSize()
        self._lost: Counter[int] = Counter()  # workers since the last batch, by no point's fault: in which phase
        self._progress = ProgressFile(order.progress)
        self._rounds = Rounds(order, proposers) if order.propose else None
        self._platforms = Platforms(Path(order.progress).with_name(FILE))
        self._measure = Measure(Path(order.progress).with_name(measured.FILE))

    def run(self) -> int:
        """Compute what is not done; returns the exit code: 0, 3 after too many failures, 143 after SIGTERM."""
        log.info("%d points to compute on %d workers", self._backlog.left, self._order.workers)
        while not self._halt_code():
            self._hand_out()
            if not self._is_open():
                if not self._next_round():
                    break
                continue
            self._take_in(TICK_S)
        code = self._halt_code() or DONE
        self._take_last()
        if self._rounds:
            self._rounds.close()
        log.info("%d points done, %d of them failed", self._progress.done, self._progress.failed)
        return code

    def _next_round(self) -> bool:
        """Whether there is a further round, whose points are to be computed now."""
        self._progress.write(self._workers.count, 0)
        told = self._rounds and self._rounds.next(len(self._sweep), lambda: not self._stopping.is_set())
        if not told:
            return False
        self._sweep = self._sweep.extended(told.grids)
        self._backlog.add(told.open)
        log.info("A further round: %d points to compute", self._backlog.left)
        return True

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
        for address in self._workers.free(self._batch_size.needed_s):
            part = self._next()
            if part is None:
                return
            self._workers.give(address, part, part.ranges, self._kinds.known)

    def _next(self) -> Part | None:
        if self._suspects:
            return self._suspects.popleft()
        ranges = self._backlog.take(self._batch_size.points(self._backlog.left, max(1, self._workers.count)))
        return Part(ranges) if ranges else None

    def _take_in(self, timeout_s: float) -> None:
        for address, part, outcome in self._workers.ended(timeout_s):
            if isinstance(outcome, Returned):
                self._accept(address, part, outcome)
            elif isinstance(outcome, Gone):
                self._compute_again(part, outcome)
            else:
                self._suspect(part, outcome)
        running = sum(size(part.ranges) for part in self._workers.tasks)
        self._progress.write(self._workers.count, running)

    def _accept(self, address: str, part: Part, returned: Returned) -> None:
        if not self._kinds.meet(returned.kinds):
            self._backlog.give_back(part.ranges)  # computed again, knowing what others found meanwhile
            return
        self._lost.clear()
        if returned.outputs:
            self._with_room(lambda: carried.hand_on(Path(self._order.outputs), returned.outputs))
        self._platforms.meet(address, returned.platform)
        self._backlog.give_back(returned.rest)
        self._count(returned.points, returned.failed)
        self._batch_size.learn(returned.points, returned.seconds, len(returned.data))
        self._measure.add(returned.points, returned.seconds, returned.memory_mb, self._workers.count)
        self._hand_out()  # the worker need not wait for the disk
        self._write(returned.data)

    def _compute_again(self, part: Part, gone: Gone) -> None:
        log.info("%s: %d points are computed again.", gone.cause, size(part.ranges))
        if part.deaths:
            self._suspects.append(part)
        else:
            self._backlog.give_back(part.ranges)

    def _suspect(self, part: Part, death: Death) -> None:
        if death.reason == "overdue":
            self._except(death.point, part)
            self._fail(death.point, death.cause)
            return
        log.warning("A worker died (%s) with %d points, which are tried again.", death.cause, size(part.ranges))
        if death.point >= 0:
            self._except(death.point, part)
            self._blame(Part([(death.point, death.point + 1)], part.deaths + 1), death.cause)
        elif death.point == GATHERING:
            self._cut(part, death.cause)
        else:
            self._suspects.append(part)
            self._lose(death)

    def _except(self, point: int, part: Part) -> None:
        """Of a part, all other points are computed again: what became of them was lost with the worker."""
        self._backlog.give_back(without(part.ranges, point))

    def _cut(self, part: Part, cause: str) -> None:
        if size(part.ranges) > 1:
            self._suspects.extend(Part(ranges) for ranges in split(part.ranges, SUSPECTS))
        else:
            self._blame(Part(part.ranges, part.deaths + 1), cause)

    def _blame(self, part: Part, cause: str) -> None:
        """A single point, if it has cost enough workers."""
        if part.deaths < DEATHS:
            self._suspects.append(part)
        else:
            self._fail(part.ranges[0][0], f"Killed its worker, {DEATHS} times: {cause}.")

    def _lose(self, death: Death) -> None:
        """A worker, by no point's fault."""
        self._lost[death.point] += 1
        if death.point == SETTING_UP and self._lost[SETTING_UP] >= DEATHS:
            raise EmsError(f"setup {self._order.setup!r} killed its worker, {DEATHS} times: {death.cause}.")
        if sum(self._lost.values()) > DEATHS * self._order.workers:
            at = "it loads the code" if death.point == LOADING else "it begins"
            raise EmsError(f"Each worker dies when {at}: {death.cause}.", "The end of job.log may show why.")

    def _fail(self, point: int, error: str) -> None:
        mark = Mark(point, "failed", self._sweep.parameters(point), error)
        self._write(encode(Batch(array("q"), array("q"), (), (point,), (mark,))))
        self._count(1, 1)

    def _count(self, points: int, failed: int) -> None:
        self._progress.done += points
        self._progress.failed += failed

    def _spool_is_full(self) -> bool:
        return self._spool.waiting_bytes() > SPOOL_BYTES

    def _write(self, data: bytes) -> None:
        self._with_room(lambda: self._spool.write_encoded(data))

    def _with_room(self, write: Callable[[], None]) -> None:
        """On a full disk, wait until what is stored has made room."""
        while True:
            try:
                return write()
            except OSError as error:
                if error.errno not in NO_ROOM or self._stopping.wait(FULL_S):
                    raise
                log.warning("%s: waiting for room.", error)

    def _take_last(self) -> None:
        """Of a run that stops early: what comes back within seconds."""
        leave_at = time.monotonic() + LEAVE_S
        while self._workers.tasks and time.monotonic() < leave_at:
            self._take_in(TICK_S)
        self._progress.write(self._workers.count, 0, now=True)
        self._measure.write()


def main(order_file: str, drive: Callable[[str, threading.Event], int] | None = None) -> NoReturn:
    """Carry out the order in `order_file`, and exit with the code that the module's docstring lists.

    `drive`: what does it, if the order is not one of a function.
    """
    _log_to_stderr()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    try:
        code = (drive or _drive)(order_file, stopping)
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
    try:
        from ems.node.driver.joining import JoiningSlot, JoiningWorkers
        from ems.node.driver.worker_process import Limits
        from ems.node.driver.workers import Workers
    except ImportError as error:
        raise EmsError(
            f"A sweep needs dask.distributed: {error}.",
            "Add `dask[distributed]` to the environment's requirements.in and lock it again.",
        ) from error
    limits = Limits(order.memory_mb, order.point_timeout_s, order.setup_timeout_s)
    scratch = Path(order.spool).with_name("dask")
    workers: Workers[Part] | JoiningWorkers[Part]
    if order.joining:
        here = order.workers if order.workers_here is None else order.workers_here
        slot = JoiningSlot(order_file, limits)
        workers = JoiningWorkers(here, slot, scratch, Path(order.joining), order.host)
    else:
        workers = Workers(order.workers, order_file, limits, scratch)
    try:
        return Driver(order, workers, stopping).run()
    finally:
        workers.close()
