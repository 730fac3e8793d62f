"""How `ems` speaks: what was asked for goes to standard output, remarks, errors and progress to standard error."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import Any, TextIO, TypeVar

import rich.text
import typer
from rich import progress
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.theme import Theme

from ems.base.errors import EmsError
from ems.base.messages import CONTROL, visible

T = TypeVar("T")
PATIENCE_S = 1.0  # before a line of progress is worth it
BAR_WIDTH, PIPE_WIDTH = 16, 10_000
COLOURS = Theme({"bar.complete": "cyan", "bar.finished": "green", "bar.pulse": "cyan"})  # rich's bars are red
COMMAND = re.compile("(ems|git|uv|cp|mv|rm|cd|export) ")
SIGNS = {"v": "✓", "x": "✗", ">": "▸▶", "-": "·–—─╸╺━", "~": "…", "|": "│", "+": "├└", "*": "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"}
STAND_INS = {ord(sign): letter for letter, signs in SIGNS.items() for sign in signs}  # each as wide as the sign


class Text(rich.text.Text):
    """Styled text in which control characters are visible, and as wide as they look."""

    def __init__(self, text: str = "", style: str | Style = "", **options: Any) -> None:
        super().__init__(visible(text), style, **options)

    @classmethod
    def assemble(cls, *parts: str | rich.text.Text | tuple[str, str | Style], **options: Any) -> Text:
        """As rich's: the parts one after the other, some with a style."""
        made = cls(**options)
        for part in parts:
            made.append(*part) if isinstance(part, tuple) else made.append(part)
        return made

    def append(self, text: rich.text.Text | str, style: str | Style | None = None) -> Text:
        """As rich's; returns the text itself."""
        super().append(visible(text) if isinstance(text, str) else text, style)
        return self


class Plain(Console):
    """A console that shows values as they are: none is markup, none is the name of an emoji, none moves the cursor.

    Values come from jobs, from colleagues' rows and from files, which nobody has read before they are shown.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, markup=False, highlight=False, theme=COLOURS, **options)
        if "width" not in options and "COLUMNS" not in os.environ and not self.is_terminal:
            self.width = PIPE_WIDTH  # rows for other programs are not folded

    def render_str(self, text: str, **options: Any) -> rich.text.Text:
        """Text that is given as a `str`: printed, or in a table's cell."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`; those that steer the terminal are rich's own."""
        for segment in super().render(renderable, options):
            if segment.control or not CONTROL.search(segment.text):
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Have the command end as others do whose reader went away."""
        raise BrokenPipeError

    def flow(self, text: str | rich.text.Text, style: str | Style | None = None) -> None:
        """Print sentences: on a terminal in lines broken between words.

        A longer word, such as a path, stays whole, and so does a line that is a command, to be copied.
        """
        whole = self.render_str(text) if isinstance(text, str) else text
        for line in whole.split("\n", allow_blank=True):
            breaks = self.is_terminal and not COMMAND.match(line.plain)
            parts = list(line.divide(_breaks(line.plain, self.width))) if breaks else [line]
            for part in parts[:-1]:
                part.rstrip()  # else a space could stand alone on a line
            for part in parts:
                self.print(part, style=style, soft_wrap=True)


def _breaks(line: str, width: int) -> list[int]:
    """Where a line of sentences is broken, so that no part is wider but a single word."""
    breaks, begin = [], 0
    for word in re.finditer(r"\s*\S+", line):
        if cell_len(line[begin : word.end()]) > width and line[begin : word.start()].strip():
            begin = word.end() - len(word[0].lstrip())
            breaks.append(begin)
    return breaks


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """For letters that a stream cannot take: a sign of the same width, else the letter's number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end].translate(STAND_INS)
    return letters.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("stand-in", _stand_in)


def any_letter() -> None:
    """From now on no letter is refused by standard output or error, whatever the terminal's encoding is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="stand-in")


out = Plain()
err = Plain(stderr=True)


class _Terminal(io.TextIOBase):
    """Standard output as a terminal may show it: a carriage return begins a line, controls are visible."""

    def write(self, text: str) -> int:
        return sys.stdout.write(visible(text.replace("\r\n", "\n").replace("\r", "\n")))

    def flush(self) -> None:
        sys.stdout.flush()


def text_out() -> TextIO:
    """Where text that others wrote goes, such as a log: standard output, as it is unless that is a terminal.

    What is not for a terminal is UTF-8, as in files: no letter is lost on its way into another program.
    """
    if sys.stdout.isatty():
        return _Terminal()  # type: ignore[return-value]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    return sys.stdout


def print_json(value: object) -> None:
    """Print a JSON value on standard output, indented; letters beyond ASCII are escaped only where they must be."""
    text = json.dumps(value, indent=2, ensure_ascii=not out.encoding.startswith("utf"))
    typer.echo(CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def say(text: str) -> None:
    """A remark: never a part of what a script reads."""
    err.flow(text)


def show_error(error: EmsError) -> None:
    """Print the message and below it the hint, if there is one, on standard error."""
    err.flow(Text.assemble(("error:", "bold red"), " ", error.message))
    if error.hint:
        err.flow(error.hint, "dim")


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """A spinner with a line that changes; on a terminal only."""
    with _drawn() as live:
        task = live.add_task(text, total=None)
        yield lambda line: live.update(task, description=line)


@contextmanager
def counting(doing: str, items: Sequence[T]) -> Iterator[Iterable[T]]:
    """The items; on a terminal, a line counts those that were taken if the block lasts longer than a second."""
    if not err.is_interactive:
        yield items
        return
    live = _drawn(progress.BarColumn(bar_width=BAR_WIDTH), progress.MofNCompleteColumn())
    task = live.add_task(doing, total=len(items))
    later = Timer(PATIENCE_S, live.start)
    later.start()
    try:
        yield _told(items, lambda done: live.update(task, completed=done))
    finally:
        later.cancel()
        later.join()
        live.stop()


@contextmanager
def measuring(text: str) -> Iterator[Callable[[float], None]]:
    """A bar from 0 to 1, for work that takes longer than a second; on a terminal only."""
    live = _drawn(progress.BarColumn(bar_width=BAR_WIDTH), progress.TaskProgressColumn(markup=False))
    task = live.add_task(text, total=1.0)
    if not err.is_terminal:
        yield lambda _share: None
        return
    later = Timer(PATIENCE_S, live.start)
    later.start()
    try:
        yield lambda share: live.update(task, completed=share)
    finally:
        later.cancel()
        later.join()
        live.stop()


def _told(items: Sequence[T], told: Callable[[int], None]) -> Iterator[T]:
    for done, item in enumerate(items):
        told(done)
        yield item


def _drawn(*columns: progress.ProgressColumn) -> progress.Progress:
    """A line that is redrawn in place, and gone in the end; on a terminal only."""
    all_columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        *columns,
        progress.TimeElapsedColumn(),
    )
    return progress.Progress(*all_columns, console=err, transient=True, disable=not err.is_terminal)
