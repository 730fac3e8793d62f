"""Runs as they go on: a whole terminal of them, or a line at each change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segments
from rich.table import Table

from ems.base.console import Plain, Text
from ems.base.messages import Say
from ems.lab.line import duration, standing
from ems.lab.patience import Pace
from ems.views.progress import Progress, failure_line
from ems.views.status import COLOURS

NAME_WIDTH = 24
FAILURES_SHOWN = 3
LEAST_LOG = 2
REDRAWN_PER_S = 1
LEAVE = "Ctrl-C leaves; the runs go on."

Looks = Sequence[Progress]


def show(console: Plain, lab_name: str, follow: Callable[[Say], Iterable[Looks]], remark: Say) -> None:
    """Show what `follow` gives until there is no more; what was seen last stays.

    `follow` is given a way to make remarks: on the screen, else `remark`.
    """
    if console.file.isatty() and not console.is_dumb_terminal:
        _show_on_screen(console, lab_name, follow)
    else:
        _show_as_lines(console, follow(remark))


def _show_on_screen(console: Plain, lab_name: str, follow: Callable[[Say], Iterable[Looks]]) -> None:
    page = Page(lab_name)
    looks = iter(follow(page.say))
    page.looks = next(looks)
    try:
        if any(look.under_way for look in page.looks):
            with Live(page, console=console, screen=True, refresh_per_second=REDRAWN_PER_S):
                for page.looks in looks:
                    page.say("")
    finally:
        for look in page.looks:
            _print(console, look)


def _show_as_lines(console: Plain, looks: Iterable[Looks]) -> None:
    paces: dict[str, Pace] = {}
    ended: set[str] = set()
    for current in looks:
        for look in current:
            is_new = look.stack not in ended and not look.under_way
            if is_new or (look.under_way and paces.setdefault(look.stack, Pace()).shows(repr(look))):
                _print(console, look)
            if is_new:
                ended.add(look.stack)


def _print(console: Plain, look: Progress) -> None:
    console.flow(Text(repr(look)))


class Page:
    """All of a terminal, whatever its size is just now: bars, failures, and the logs' ends where there is room."""

    def __init__(self, lab_name: str, looks: Looks = ()) -> None:
        self._lab_name = lab_name
        self.looks = looks
        self._remark = ""
        self._drawn: dict[str, tuple[Progress, tuple[int, int], Segments]] = {}

    def say(self, remark: str) -> None:
        """Shown in place of the last line, until there is another one or none."""
        self._remark = remark

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.height
        looks = sorted(self.looks, key=lambda look: (not look.under_way, look.stack))
        lines = sum(map(_height, looks))
        body = list(islice(self._blocks(looks, console, options), max(height - 2, 0)))  # there may be thousands
        busy = [look for look in looks if look.under_way and look.log]
        log_lines = (height - 2 - lines) // max(len(busy), 1) - 1
        if log_lines >= LEAST_LOG:
            body += [line for look in busy for line in _log(look, log_lines, named=len(busy) > 1)]
        yield self._header(width)
        yield from _fitted(body, max(lines, len(body)), height - 2)
        last, style = (self._remark, "bold red") if self._remark else (LEAVE, "dim")
        yield Text(last, style=style, no_wrap=True, overflow="ellipsis", end="")

    def _blocks(self, looks: Looks, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        name_width = self._name_width()
        for look in looks:
            if look.under_way:
                yield from _block(look, name_width)
            else:
                yield self._ended(look, name_width, console, options)

    def _ended(self, look: Progress, name_width: int, console: Console, options: ConsoleOptions) -> Segments:
        """The line of one that has ended, drawn once for a width: an old lab has a page of them."""
        widths = (options.max_width, name_width)
        before = self._drawn.get(look.stack)
        if before is None or before[0] is not look or before[1] != widths:
            line = Segments(console.render(_bar_line(look, name_width), options))
            before = self._drawn[look.stack] = (look, widths, line)
        return before[2]

    def _name_width(self) -> int:
        return min(max(len(look.stack) for look in self.looks), NAME_WIDTH)

    def _header(self, width: int) -> RenderableType:
        under_way = sum(look.under_way for look in self.looks)
        left = f"{self._lab_name}: {under_way} of {len(self.looks)} under way"
        right = f"{datetime.now():%H:%M:%S}"
        return Text(f"{left:<{max(width - len(right) - 1, 0)}} {right}", style="bold", no_wrap=True, overflow="crop")


def _fitted(body: list[RenderableType], lines: int, height: int) -> list[RenderableType]:
    """Just `height` lines: padded, or cut with a remark. `lines`: how many there are, of which `body` has the first."""
    if lines > height:
        kept = max(height - 1, 0)
        return [*body[:kept], Text(f"… and {lines - kept:,} more lines: make the terminal taller", style="dim")]
    return [*body, *[Text()] * (height - len(body))]


def _height(look: Progress) -> int:
    """How many lines its block has."""
    return 2 + len(look.failures[-FAILURES_SHOWN:]) if look.under_way else 1


def _block(look: Progress, name_width: int) -> Iterator[RenderableType]:
    """The lines of one under way."""
    yield _bar_line(look, name_width)
    yield _line("  " + " · ".join(look.details()))
    for mark in look.failures[-FAILURES_SHOWN:]:
        yield _line(f"  {failure_line(mark)}", "red")


def _bar_line(look: Progress, name_width: int) -> RenderableType:
    """Of one that has ended, its numbers stand where the others have a bar."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=name_width, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=12, no_wrap=True)
    grid.add_column(width=12, no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True)
    grid.add_column(width=5, no_wrap=True, justify="right")
    counts = look.points_total > 1
    bar: RenderableType = _line(" · ".join(look.details()))
    if look.under_way:
        bar = ProgressBar(total=1, completed=look.share, pulse=not counts)
    state = Text(standing(look.experiment), style=COLOURS.get(look.state, ""))
    grid.add_row(Text(look.stack, "bold"), state, duration(look.took), bar, look.percent if counts else "")
    return grid


def _log(look: Progress, lines: int, *, named: bool) -> Iterator[RenderableType]:
    yield _line(f"log of {look.stack}:" if named else "log:", "bold dim")
    for line in look.log[-lines:]:
        yield _line(line.expandtabs(), "dim")


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
