"""The points of a sweep that failed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import rich.text

from ems.base.console import Text
from ems.base.messages import counted, raised
from ems.spool.batch import Mark, jsonable

FEW, MOST_SHOWN, MOST_GROUPS = 3, 10, 1_000
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)


class FailureObject(TypedDict):
    """One point that failed."""

    point: Annotated[int, "Number of the point in the grid, from 0."]
    parameters: Annotated[dict[str, Any], "The parameters of the point, by name."]
    error: Annotated[str, "The error with its traceback."]


def as_object(mark: Mark) -> FailureObject:
    """The shape of one entry of `ems failures --json`; `error` has the traceback."""
    return {"point": mark.point, "parameters": jsonable(mark.parameters), "error": mark.error}


@dataclass
class Group:
    """Points that failed with the same error: how many, and the first few of them."""

    error: str
    count: int = 0
    first: list[Mark] = field(default_factory=list)

    def add(self, mark: Mark) -> None:
        """One point more."""
        self.count += 1
        self.first += [mark] if self.count <= FEW else []


def grouped(marks: Iterable[Mark]) -> list[Group]:
    """The points by their errors, the commonest first. Numbers do not make errors different: they are often values.

    More than MOST_GROUPS kinds of errors are not kept apart: the rest is one group, without a point.
    """
    groups: dict[str, Group] = {}
    for mark in marks:
        line = reason(mark)
        kind = NUMBER.sub("#", line)
        if kind not in groups and len(groups) >= MOST_GROUPS:
            kind, line = "", "other errors"
        groups.setdefault(kind, Group(line)).add(mark)
    return sorted(groups.values(), key=lambda group: -group.count)


def page(marks: Iterable[Mark], stack: str) -> rich.text.Text:
    """Each error once, with how many points and a few of them, the commonest first; then where to read on."""
    groups = grouped(marks)
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
    yield Text.assemble((group.error or "no error was recorded", "bold"), f"  × {counted(group.count, 'point')}")
    for mark in group.first:
        yield Text.assemble((f"  point {mark.point:,}  ", "dim"), parameters(mark))
    if group.count > len(group.first):
        yield Text(f"  … and {group.count - len(group.first):,} more", "dim")


def parameters(mark: Mark) -> str:
    """A point's parameters in one line, as `n=10, seed=3`."""
    return ", ".join(f"{name}={value}" for name, value in mark.parameters.items())


def reason(mark: Mark) -> str:
    """The line of its error that says what went wrong; of EMS's own errors, which have no traceback, the first."""
    own = not mark.error.startswith("Traceback")
    return mark.error.strip().partition("\n")[0] if own else raised(mark.error)
