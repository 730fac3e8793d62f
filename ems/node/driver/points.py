"""A worker's part of a sweep: ranges of points in, an encoded batch of their rows and marks out.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ems.base.errors import EmsError
from ems.node.driver import platform
from ems.node.driver.ranges import BATCH_BYTES, TARGET_S, Range, cut
from ems.node.driver.rows import BadResult
from ems.node.driver.typed_rows import Gathered, Kind
from ems.spool.batch import Batch, ColumnType, Mark, Value
from ems.spool.encoding import encode
from ems.sweep import Sweep

BUDGET_S = 2 * TARGET_S
MOST_CELLS = BATCH_BYTES // 8
LATE_S = 1.0


@dataclass(frozen=True)
class Order:
    """What the driver is to do, as its JSON file says."""

    function: str  # package.module:name
    grids: list[dict[str, Any]]
    code: str  # folder that comes first on sys.path
    spool: str  # folder
    done: str  # file: bit i % 8 of byte i // 8 is set where point i is stored
    progress: str  # file
    workers: int
    threads: int  # of BLAS and its likes, per worker
    retries: int = 0
    max_failures: int | None = None
    memory_mb: int | None = None  # per worker
    point_timeout_s: float | None = None
    types: dict[str, ColumnType] = field(default_factory=dict)  # of the columns that the results table has already


@dataclass(frozen=True)
class Returned:
    """What became of a batch. `rest`: the points that were left, as it had taken long enough or grown large enough."""

    data: bytes
    points: int
    failed: int
    rest: list[Range]
    kinds: dict[str, Kind]
    seconds: float
    spoilt: bool  # a point that does not end still runs in the worker: its process has to go
    platform: str  # of the worker, as JSON; "" if it is not known


@dataclass(frozen=True)
class Task:
    """What a worker does with each point: call `function` with its parameters, up to `retries` times more if it raises.

    `timeout_s`: the most that one call may take; None: no limit.
    """

    function: Callable[..., Any]
    sweep: Sweep
    retries: int
    timeout_s: float | None


def read_order(file: str) -> Order:
    """The order in a JSON file."""
    return Order(**json.loads(Path(file).read_text(encoding="utf-8")))


def enter(order: Order) -> None:
    """Make the folder of the code the working directory, and the first place that modules are imported from."""
    os.chdir(order.code)
    if order.code not in sys.path:
        sys.path.insert(0, order.code)


def compute(order_file: str, ranges: list[Range], known: Mapping[str, Kind]) -> Returned:
    """EmsError if there is no such function; whatever else a point does is reported in the batch."""
    task = _task(order_file)
    work = Work(task, ranges, known)
    if task.timeout_s is None:
        work.run()
    else:
        _watch(work, task.timeout_s)
    return work.returned()


@lru_cache(maxsize=1)
def _task(order_file: str) -> Task:
    order = read_order(order_file)
    enter(order)
    return Task(_function(order.function), Sweep.of(order.grids), order.retries, order.point_timeout_s)


def _function(name: str) -> Callable[..., Any]:
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise EmsError(
            f"function {name!r} cannot be imported:\n{told(error, own_frames=1)}",
            "It is `package.module:name` in the declared code, with its needs in the experiment's environment.",
        ) from None
    if not callable(found):
        raise EmsError(f"function {name!r} is a {type(found).__name__}, which cannot be called.")
    return found  # type: ignore[no-any-return]


def told(error: BaseException, own_frames: int) -> str:
    """The error with its traceback, but for the outermost frames, which are EMS's own."""
    frames = error.__traceback__
    for _ in range(own_frames):
        frames = frames and frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).strip()


def _watch(work: Work, timeout_s: float) -> None:
    """Run `work` in a thread until it is done or one of its points takes too long.

    A point that never releases the interpreter cannot be seen from here: then the process ends.
    """
    overdue, tick_s = False, min(0.5, timeout_s / 4)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        end_later = partial(faulthandler.dump_traceback_later, 2 * timeout_s + 5, exit=True, file=nowhere)
        end_later()
        running = ThreadPoolExecutor(1).submit(work.run)
        while not overdue and not running.done():
            work.forgive(_asleep(lambda: wait([running], timeout=tick_s), tick_s))
            end_later()
            overdue = work.abandoned(timeout_s)
        faulthandler.cancel_dump_traceback_later()
    if not overdue:
        running.result()


def _asleep(pause: Callable[[], object], pause_s: float) -> float:
    """Pause; for how long the process was stopped (SIGSTOP) meanwhile: it was late, and used no CPU."""
    began, cpu = time.perf_counter(), time.process_time()
    pause()
    late_s = time.perf_counter() - began - pause_s
    return late_s if late_s > LATE_S and time.process_time() - cpu < late_s / 10 else 0.0


class Work:
    """The points of one batch, one after another."""

    def __init__(self, task: Task, ranges: Sequence[Range], known: Mapping[str, Kind]) -> None:
        self._task, self._ranges = task, ranges
        self._gathered = Gathered(task.sweep.names, {**known, **task.sweep.types})
        self._points: list[int] = []
        self._marks: list[Mark] = []
        self._lock = threading.Lock()
        self._spoilt = False
        self._now: tuple[int, dict[str, Value], float] | None = None  # the point at work and when it began
        self._began = time.perf_counter()

    def run(self) -> None:
        """Call the function point by point, until all are done, the batch is full, or one is given up."""
        for point, parameters in self._todo():
            result, error = self._call(point, parameters)
            with self._lock:
                if self._spoilt:
                    return
                self._now = None
                self._keep(point, parameters, result, error)
            if time.perf_counter() - self._began > BUDGET_S or self._gathered.cells > MOST_CELLS:
                return

    def _todo(self) -> Iterator[tuple[int, dict[str, Value]]]:
        for first, last in self._ranges:
            yield from zip(range(first, last), self._task.sweep.iterate(first, last))  # noqa: B905

    def _call(self, point: int, parameters: dict[str, Value]) -> tuple[Any, str]:
        """The function's result, or else what it raised at last."""
        error = ""
        for _ in range(1 + self._task.retries):
            self._now = (point, parameters, time.perf_counter())
            try:
                return self._task.function(**parameters), ""
            except BaseException as raised:  # SystemExit too, which would end the worker
                error = told(raised, own_frames=1)
        return None, error

    def _keep(self, point: int, parameters: dict[str, Value], result: Any, error: str) -> None:
        self._points.append(point)
        try:
            if error:
                self._marks.append(Mark(point, "failed", parameters, error))
            elif not self._gathered.add(point, parameters, result):
                self._marks.append(Mark(point, "empty", parameters))
        except Exception as problem:  # of the result's own methods, too
            text = str(problem) if isinstance(problem, BadResult) else told(problem, own_frames=0)
            self._marks.append(Mark(point, "failed", parameters, text))

    def forgive(self, seconds: float) -> None:
        """So long, the point at work could not go on."""
        with self._lock:
            if self._now:
                point, parameters, began = self._now
                self._now = (point, parameters, began + seconds)

    def abandoned(self, timeout_s: float) -> bool:
        """Give up the point at work, and all after it, if it has taken longer than that."""
        with self._lock:
            if self._now is None or time.perf_counter() - self._now[2] <= timeout_s:
                return False
            point, parameters, _ = self._now
            self._spoilt = True
            self._keep(point, parameters, None, f"It took longer than point_timeout_s: {timeout_s:g}; stopped.")
            return True

    def returned(self) -> Returned:
        """What has become of the points by now; to be called once, after `run` has returned or a point was given up."""
        typed = self._gathered.typed()
        for point, problem in typed.refused.items():
            self._marks.append(Mark(point, "failed", self._task.sweep.parameters(point), problem))
        points, rows = self._gathered.points, self._gathered.rows
        data = encode(Batch(points, rows, typed.columns, tuple(self._points), tuple(self._marks)))
        return Returned(
            data,
            points=len(self._points),
            failed=sum(mark.state == "failed" for mark in self._marks),
            rest=cut(self._ranges, len(self._points))[1],
            kinds=typed.kinds,
            seconds=time.perf_counter() - self._began,
            spoilt=self._spoilt,
            platform=platform.here(),
        )
