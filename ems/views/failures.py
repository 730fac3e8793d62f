"""The points of a sweep that failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypedDict

import rich.text

from ems.base.console import Text
from ems.base.messages import counted
from ems.databases import RETRYABLE, Experiment
from ems.lab.line import way_on
from ems.spool.batch import Mark, jsonable
from ems.spool.failures import Group, grouped

MOST_SHOWN = 10


class FailureObject(TypedDict):
    """One point that failed."""

    point: Annotated[int, "Number of the point in the grid, from 0."]
    parameters: Annotated[dict[str, Any], "The parameters of the point, by name."]
    error: Annotated[str, "The error with its traceback."]


def as_object(mark: Mark) -> FailureObject:
    """The shape of one entry of `ems failures --json`; `error` has the traceback."""
    return {"point": mark.point, "parameters": jsonable(mark.parameters), "error": mark.error}


def page(marks: Iterable[Mark], experiment: Experiment) -> rich.text.Text:
    """Each error once, with how many points and a few of them, the commonest first; then where to read on."""
    stack, groups = experiment.registration.stack, grouped(marks)
    if not groups and experiment.state in RETRYABLE:
        why = f": {experiment.error}" if experiment.error else ""
        return Text(f"{stack}: no point failed; the run is {experiment.state}{why}\n{way_on(experiment)}")
    if not groups:
        return Text(f"{stack}: no point failed")
    failed = sum(group.count for group in groups)
    kinds = f" with {len(groups):,} different errors" if len(groups) > 1 else ""
    lines = [Text.assemble((stack, "bold"), ": ", (f"{counted(failed, 'point')} failed{kinds}", "red"))]
    for group in groups[:MOST_SHOWN]:
        lines += _lines(group)
    if len(groups) > MOST_SHOWN:
        lines.append(Text(f"and {len(groups) - MOST_SHOWN:,} more errors", "dim"))
    lines.append(Text(f"tracebacks: ems failures {stack} --json · compute them again: ems up {stack} --retry", "dim"))
    return Text("\n").join(lines)


def _lines(group: Group) -> Iterator[Text]:
    yield Text("")
    such_as = "such as " if group.differs else ""
    error = group.error or "no error was recorded"
    yield Text.assemble((such_as, "dim"), (error, "bold"), f"  × {counted(group.count, 'point')}")
    for mark in group.first:
        yield Text.assemble((f"  point {mark.point:,}  ", "dim"), parameters(mark))
    if group.count > len(group.first):
        yield Text(f"  … and {group.count - len(group.first):,} more", "dim")


def parameters(mark: Mark) -> str:
    """A point's parameters in one line, as `n=10, seed=3`."""
    return ", ".join(f"{name}={value}" for name, value in mark.parameters.items())
