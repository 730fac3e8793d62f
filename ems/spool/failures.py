"""Failed points by their errors. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ems.base.messages import raised
from ems.spool.batch import Mark

FEW, MOST_GROUPS = 3, 1_000
NUMBER = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)


@dataclass
class Group:
    """Points that failed with the same error: how many, and the first few of them.

    `error`: that of the first; `differs`: whether others have other numbers in it.
    """

    error: str
    differs: bool = False
    count: int = 0
    first: list[Mark] = field(default_factory=list)

    def add(self, mark: Mark, error: str) -> None:
        """One point more."""
        self.count += 1
        self.differs |= error != self.error
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
        groups.setdefault(kind, Group(line)).add(mark, line)
    return sorted(groups.values(), key=lambda group: -group.count)


def reason(mark: Mark) -> str:
    """The line of its error that says what went wrong; of EMS's own errors, which have no traceback, the first."""
    own = not mark.error.startswith("Traceback")
    return mark.error.strip().partition("\n")[0] if own else raised(mark.error)
