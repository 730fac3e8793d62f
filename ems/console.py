"""How `ems` speaks: what was asked for goes to standard output, remarks, errors and progress to standard error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich import progress
from rich.console import Console

from ems.errors import EmsError

out = Console(emoji=False)  # `arn:aws:secretsmanager:…:secret:NAME` has the name of one in it
err = Console(stderr=True, emoji=False)


def print_json(value: object) -> None:
    """Print a JSON value on standard output, indented; letters beyond ASCII are not escaped."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """A remark: never a part of what a script reads."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def show_error(error: EmsError) -> None:
    """Print the message and below it the hint, if there is one, on standard error."""
    err.print("error:", style="bold red", end=" ", highlight=False)
    err.print(error.message, markup=False, highlight=False, soft_wrap=True)
    if error.hint:
        err.print(error.hint, style="dim", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """A spinner with a line that changes; on a terminal only."""
    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as live:
        task = live.add_task(text, total=None)
        yield lambda line: live.update(task, description=line)
