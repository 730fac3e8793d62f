"""What `ems up` shows while it is at work: a line for each stack under way, in place.

Where nothing can be drawn in place, a plain line every so often.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table

from ems.base.console import Plain, Text
from ems.base.messages import counted
from ems.databases import Experiment, State, rounds
from ems.lab import Lab
from ems.lab.line import GOES_ON, progress_line, under_way
from ems.lab.patience import Pace
from ems.views import left
from ems.views.progress import Progress, glance
from ems.views.status import COLOURS

NAME_WIDTH = 24
BAR_WIDTH = 16


class Board:
    """The stacks under way on `console`. Remarks and ends stay above them."""

    def __init__(self, console: Plain, lab: Lab, total: int, *, drawn: bool = True) -> None:
        self._console, self._lab, self._total = console, lab, total
        self._is_drawn = drawn and console.is_terminal and not console.is_dumb_terminal
        self._lines: dict[str, Line] = {}
        self._ended = 0
        self._lock = threading.RLock()
        self._spinner = Spinner("dots")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw it as long as the block lasts."""
        if not self._is_drawn:
            yield
            return
        with Live(self, console=self._console, refresh_per_second=8, transient=True):
            yield

    @contextmanager
    def stack(self, name: str) -> Iterator[Line]:
        """The line of a stack, which is under way as long as the block lasts."""
        line = Line(self, name)
        with self._lock:
            self._lines[name] = line
        try:
            yield line
        finally:
            with self._lock:
                del self._lines[name]

    def end(self, name: str, experiment: Experiment | None, *, ran: bool) -> None:
        """How a stack has ended, in a line that stays. `ran`: whether there was anything to do."""
        self._count(ended(name, experiment, ran=ran, why=self._total > 1))

    def fail(self, name: str, error: str) -> None:
        """Why a stack could not be brought to an end."""
        self._count(Text.assemble((f"✗ {name} ", "red"), error))

    def _count(self, text: Text) -> None:
        with self._lock:
            self._ended += 1
            count = f"[{self._ended}/{self._total}] " if self._total > 1 else ""
            self.keep(Text.assemble((count, "dim"), text))

    def keep(self, line: Text) -> None:
        """A line that stays."""
        with self._lock:
            self._console.flow(line)

    def step(self, line: str) -> None:
        """Of what goes on, where nothing can be drawn in place."""
        if not self._is_drawn:
            self.keep(Text(line))

    def glance(self, experiment: Experiment) -> Progress:
        """How a run does."""
        return glance(self._lab, experiment)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            lines = list(self._lines.values())
        name_width = min(max((len(line.name) for line in lines), default=0), NAME_WIDTH)
        for line in lines:
            yield line.drawn(self._spinner, name_width, options.max_width)


class Line:
    """One stack's, which hears of its update."""

    def __init__(self, board: Board, name: str) -> None:
        self.name = name
        self._board, self._pace = board, Pace()
        self._step = ""
        self._seen: Progress | None = None

    def say(self, line: str) -> None:
        """A step, until the next one."""
        is_new, self._step, self._seen = _kind(line) != _kind(self._step), line, None
        if is_new:
            self._board.step(f"{self.name}: {line}")

    def note(self, line: str) -> None:
        """A remark that stays."""
        self._board.keep(Text(f"{self.name}: {line}"))

    def look(self, experiment: Experiment) -> None:
        """The run under way."""
        self._seen = self._board.glance(experiment)
        if self._pace.shows(repr(self._seen)):
            self._board.step(repr(self._seen))

    def conclude(self, text: str, *, failed: bool) -> None:
        """Nothing: who asked for the update says how it ended, when all is released."""

    def drawn(self, spinner: Spinner, name_width: int, width: int) -> RenderableType:
        """In `width` characters, of which the name has `name_width`."""
        seen = self._seen
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=1)
        grid.add_column(width=name_width, no_wrap=True, overflow="ellipsis")
        cells: list[RenderableType] = [spinner, Text(self.name, "bold")]
        if seen and seen.points_total > 1:
            grid.add_column(width=min(BAR_WIDTH, max(width - name_width - 30, 4)))
            grid.add_column(width=5, justify="right")
            cells += [ProgressBar(total=1, completed=seen.share), seen.percent]
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        words = [str(seen.state), *seen.details()] if seen else [self._step or "checking"]
        grid.add_row(*cells, Text(" · ".join(words)))
        return grid


def _kind(step: str) -> str:
    """What a step is but for its numbers, as in `12 of 900 packages`."""
    return re.sub(r"\d", "", step)


def ended(stack: str, experiment: Experiment | None, *, ran: bool, why: bool = True) -> Text:
    """Such as `✓ pi succeeded · 20 rows · 1 s`; of what is not an experiment, without an `experiment`, `✓ lab`.

    `why`: with the error, if there is one.
    """
    if experiment is None:
        return Text(f"✓ {stack}", "green")
    if experiment.state is State.SUCCEEDED and not ran:
        expected = experiment.rows_stored or not experiment.registration.results_table
        colour = "green" if expected else "yellow"
        return Text(f"✓ {stack} already computed ({counted(experiment.rows_stored, 'row')})", colour)
    rows_due = bool(experiment.registration.results_table)
    if experiment.state is State.SUCCEEDED and rows_due and not experiment.rows_stored:
        told = experiment.log_tail.removeprefix("0 rows; ") or f"nothing was stored, see `ems logs {stack}`"
        kept = f" · {note}" if (note := left.note(experiment)) and not experiment.log_tail else ""
        return Text(f"✓ {stack} {progress_line(experiment)}{kept}: {told}", "yellow")
    mark = "✓" if experiment.state in {State.SUCCEEDED, State.PILOTED} else "✗" if experiment.state.finished else "▸"
    line = Text(f"{mark} {stack} {progress_line(experiment)}", COLOURS.get(experiment.state, ""))
    if note := left.note(experiment):
        line.append(f" · {note}: ems status {stack}")
    if under_way(experiment):
        return line.append(f"; {GOES_ON}")
    if experiment.state is State.SUCCEEDED:
        return line.append(*_remark(experiment))
    return line.append(f": {experiment.error.splitlines()[0]}") if experiment.error and why else line


def _remark(experiment: Experiment) -> tuple[str, str]:
    """What is said of a run with rows, but for how many those are, and the files that it left; its colour."""
    told = experiment.log_tail
    if rounds.is_proposing(experiment.registration):
        return f"; {told}", ""
    said = told.partition("\n")[0].partition("; not read: ")[0].partition("; ")[2]
    return (f": {said}", "yellow") if said else ("", "")
