"""The points of a sweep that failed."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, TypedDict

from rich.table import Table

from ems.spool.batch import Mark, jsonable


class FailureObject(TypedDict):
    """One point that failed."""

    point: Annotated[int, "Number of the point in the grid, from 0."]
    parameters: Annotated[dict[str, Any], "The parameters of the point, by name."]
    error: Annotated[str, "The error with its traceback."]


def as_object(mark: Mark) -> FailureObject:
    """The shape of one entry of `ems failures --json`; `error` has the traceback."""
    return {"point": mark.point, "parameters": jsonable(mark.parameters), "error": mark.error}


def table(marks: Iterable[Mark], failed: int, most: int = 20) -> Table:
    """The first `most` of `failed` points, each with the last line of its error."""
    shown = Table(title=f"{failed:,} points failed", title_justify="left", box=None, pad_edge=False)
    for name in ("point", "parameters", "error"):
        shown.add_column(name, overflow="fold")
    for mark in islice(marks, most):
        shown.add_row(f"{mark.point:,}", parameters(mark), last_line(mark))
    if failed > most:
        shown.caption = f"and {failed - most:,} more: --json shows all, with tracebacks"
    return shown


def parameters(mark: Mark) -> str:
    """A point's parameters in one line, as `n=10, seed=3`."""
    return ", ".join(f"{name}={value}" for name, value in mark.parameters.items())


def last_line(mark: Mark) -> str:
    """The line of its error that says what was wrong: the first, also below a traceback's frames; "" without one."""
    lines = mark.error.strip().splitlines() or [""]
    if not lines[0].startswith("Traceback"):
        return lines[0]
    last_frame = max(number for number, line in enumerate(lines) if number == 0 or line.startswith("  "))
    return lines[min(last_frame + 1, len(lines) - 1)]
