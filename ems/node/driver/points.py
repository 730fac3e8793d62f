"""A worker's part of a sweep: ranges of points in, an encoded batch of their rows and marks out.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ems.base.errors import EmsError
from ems.node.driver import platform, setup
from ems.node.driver.functions import imported, told
from ems.node.driver.measured import peak_mb
from ems.node.driver.position import GATHERING, Position
from ems.node.driver.ranges import BATCH_BYTES, TARGET_S, Range, cut
from ems.node.driver.rows import BadResult
from ems.node.driver.shared import SharedMemory
from ems.node.driver.turns import Turns
from ems.node.driver.typed_rows import Gathered
from ems.node.job.carried import Note
from ems.node.job.outputs import VARIABLE, OutputFolder
from ems.spool.batch import Batch, Mark, Value
from ems.spool.encoding import encode
from ems.spool.kinds import Kind
from ems.sweep import Sweep

BUDGET_S = 2 * TARGET_S
CERTIFICATE, KEY, SCHEDULER = "certificate.pem", "key.pem", "scheduler.json"  # in the folder by which workers join
ORDER = "order.json"  # in the run's folder
MOST_CELLS = BATCH_BYTES // 8
UNWANTED = (
    "Point {point} has rows, but the stack file says `results: none`: name a table for them, as results: "
    "{{table: NAME}}, or return no rows."
)


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
    setup: str | None = None  # as `function`; what it returns is given to each call by the keyword `context`
    setup_timeout_s: float | None = None
    types: dict[str, Kind] = field(default_factory=dict)  # of the columns that the results table has already
    propose: str | None = None  # package.module:name of what proposes further rounds
    rounds: str = ""  # folder of what is told between them (`ems.node.driver.turns`)
    file: str = ""  # the JSON file itself
    shuffle: str = ""  # the key of a random order (`ems.sweep.order`); without one, points come in ascending order
    joining: str = ""  # folder with the key by which workers of other machines join; "": none do
    outputs: str = ""  # folder in which points leave files (`ems.node.job.outputs`); "": they leave none
    host: str = ""  # under which they reach this machine
    keeps_rows: bool = True  # whether there is a table for rows
    workers_here: int | None = None  # of `workers`, those of this machine; None: all
    carried: str = ""  # folder of notes of files that this machine stores (`ems.node.job.carried`); "": it does not


@dataclass(frozen=True)
class Returned:
    """What became of a batch. `rest`: the points that were left, as it had taken long enough or grown large enough."""

    data: bytes
    points: int
    failed: int
    rest: list[Range]
    kinds: dict[str, Kind]
    seconds: float
    platform: str  # of the worker, as JSON; "" if it is not known
    memory_mb: float = 0.0  # the most that the worker has had; 0 if it is not known
    outputs: Sequence[Note] = ()  # of files that its machine has stored


@dataclass(frozen=True)
class Gone:
    """A worker that was lost, or told to end, before it had answered: no fault of its points."""

    cause: str


@dataclass(frozen=True)
class Task:
    """What a worker does with each point: call `function` with its parameters, up to `retries` times more if it raises.

    `folder`: a descriptor of the folder of the code, in which each call begins, wherever the last one had gone.
    `rounds`: the folder that tells of points that the sweep does not have yet. `outputs`: where they leave files.
    """

    function: Callable[..., Any]
    sweep: Sweep
    retries: int
    folder: int
    rounds: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)  # what each call is given beside: of `setup`
    keeps_rows: bool = True
    outputs: OutputFolder | None = None

    def reaching(self, ranges: Sequence[Range]) -> Task:
        """With a sweep that has these points: rounds may have come since."""
        if (point := max(last for _, last in ranges) - 1) < len(self.sweep):
            return self
        return replace(self, sweep=Turns(Path(self.rounds)).caught_up(self.sweep, point))


def read_order(file: str) -> Order:
    """The order in a JSON file, which may be of another kind and say more."""
    said = json.loads(Path(file).read_text(encoding="utf-8"))
    return Order(**{each.name: said[each.name] for each in fields(Order) if each.name in said} | {"file": file})


def enter(order: Order) -> None:
    """Make the folder of the code the working directory, and the first place that modules are imported from.

    The next ones are its folders that PYTHONPATH names, as src: Python took them from where this process was started.
    """
    os.chdir(order.code)
    named = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    folders = [str(Path(order.code, each)) for each in named if not Path(each).is_absolute()]
    sys.path[:0] = [each for each in dict.fromkeys([order.code, *folders]) if each not in sys.path]


def load(order_file: str, position: Position, shared: SharedMemory) -> Task:
    """Import the function of an order, and set up what it is given. EmsError if that fails, or it is none."""
    order = read_order(order_file)
    enter(order)
    folder = os.open(order.code, os.O_RDONLY)
    outputs = _outputs(order)
    function = imported("function", order.function)
    context = {setup.KEYWORD: setup.context(order.setup, function, position, shared)} if order.setup else {}
    if outputs:
        outputs.clear()  # what was written before the first point is of none
    return Task(
        function, Sweep.of(order.grids), order.retries, folder, order.rounds, context, order.keeps_rows, outputs
    )


def _outputs(order: Order) -> OutputFolder | None:
    """Where the points of this process leave files, which it finds by its variable."""
    if not order.outputs:
        return None
    folder = OutputFolder.of_process(Path(order.outputs))
    os.environ[VARIABLE] = str(folder.path)
    return folder


class Work:
    """The points of one batch, one after another. `position`: is told which one is at work."""

    def __init__(self, task: Task, position: Position, ranges: Sequence[Range], known: Mapping[str, Kind]) -> None:
        self._task, self._position, self._ranges = task, position, ranges
        self._gathered = Gathered(task.sweep.names, {**known, **task.sweep.types})
        self._points: list[int] = []
        self._marks: list[Mark] = []
        self._pid = os.getpid()
        self._began = time.perf_counter()

    def run(self) -> None:
        """Call the function point by point, until all are done or the batch is full."""
        for point, parameters in self._todo():
            result, error = self._call(point, parameters)
            self._keep(point, parameters, result, error)
            if time.perf_counter() - self._began > BUDGET_S or self._gathered.cells > MOST_CELLS:
                return

    def _todo(self) -> Iterator[tuple[int, dict[str, Value]]]:
        for first, last in self._ranges:
            yield from zip(range(first, last), self._task.sweep.iterate(first, last))  # noqa: B905

    def _call(self, point: int, parameters: dict[str, Value]) -> tuple[Any, str]:
        """The function's result, or else what it raised at last."""
        error = ""
        for number in range(1 + self._task.retries):
            if number:
                self._begin_again()
            self._position.set(point)
            os.fchdir(self._task.folder)
            try:
                result = self._task.function(**parameters, **self._task.context)
                self._leave_if_forked()
                return result, ""
            except BaseException as raised:  # SystemExit too, which would end the worker
                if os.getpid() != self._pid:
                    raise
                error = told(raised, own_frames=1)
        return None, error

    def _begin_again(self) -> None:
        """What a try has left that does not count is gone."""
        if self._task.outputs:
            self._task.outputs.clear()

    def _collect(self, point: int) -> None:
        """What the point has left, whatever became of it, is handed over to the agent."""
        if self._task.outputs:
            self._task.outputs.keep(point)

    def _leave_if_forked(self) -> None:
        """A process that the function forked has no part in the batch, however it leaves the function."""
        if os.getpid() != self._pid:
            sys.exit()

    def _keep(self, point: int, parameters: dict[str, Value], result: Any, error: str) -> None:
        """EmsError for rows that nobody wants: all other points would have them, too."""
        self._points.append(point)
        try:
            self._collect(point)
            if error:
                self._marks.append(Mark(point, "failed", parameters, error))
            elif not self._gathered.add(point, parameters, result):
                self._marks.append(Mark(point, "empty", parameters))
        except Exception as problem:  # of the result's own methods, too
            text = str(problem) if isinstance(problem, BadResult) else told(problem, own_frames=0)
            self._marks.append(Mark(point, "failed", parameters, text))
        if not self._task.keeps_rows and self._gathered.points:
            raise EmsError(UNWANTED.format(point=point))

    def returned(self) -> Returned:
        """What has become of the points; to be called once, after `run`."""
        self._position.set(GATHERING)
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
            platform=platform.here(),
            memory_mb=peak_mb(),
        )
