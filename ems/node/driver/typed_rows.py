"""Typed columns of the rows of many points.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ems.node.driver.rows import BadResult, rows_of, shown
from ems.spool.batch import Column, Value
from ems.spool.kinds import Kind, column, settled

RESERVED = frozenset({"experiment_id", "point", "row", "rowid"})


@dataclass(frozen=True)
class Typed:
    """The columns of a batch's rows, what each is now, and of points that had to go: why."""

    columns: tuple[Column, ...]
    kinds: dict[str, Kind]
    refused: dict[int, str]


class Gathered:
    """The rows of a batch's points. `known`: what the columns were so far, those of the `parameters` too."""

    def __init__(self, parameters: Collection[str], known: Mapping[str, Kind]) -> None:
        self._parameters, self._known = tuple(parameters), known
        self._taken = {name.lower() for name in parameters}
        self._spelled = {name.lower(): name for name in known}
        self._names: dict[tuple[str, ...], None] = {}  # the rows' columns: all that came, each order once
        self.points, self.rows = array("q"), array("q")
        self._records: list[dict[str, Value]] = []
        self.cells = 0

    def add(self, point: int, parameters: Mapping[str, Value], result: Any) -> int:
        """How many rows it has. BadResult, and nothing is added."""
        rows = rows_of(result)
        fresh = dict.fromkeys(map(tuple, rows))
        if not fresh.keys() <= self._names.keys():
            self._check(dict.fromkeys(chain.from_iterable(fresh)))
            self._names.update(fresh)
        for number, row in enumerate(rows):
            record = {**parameters, **row}
            self._records.append(record)
            self.points.append(point)
            self.rows.append(number)
            self.cells += len(record) + sum(len(value) for value in row.values() if type(value) is str) // 8
        return len(rows)

    def _check(self, names: Iterable[str]) -> None:
        fresh: dict[str, str] = {}
        for name in names:
            if not isinstance(name, str):
                raise BadResult(f"The name of a column is {shown(name)}.", "Allowed: text, as in df.columns = ['a'].")
            lower = name.lower()
            if not name or "\0" in name or lower in RESERVED:
                raise BadResult(
                    f"{name!r} cannot be the name of a column.",
                    f"Any name but an empty one and {', '.join(sorted(RESERVED))}.",
                )
            if lower in self._taken:
                raise BadResult(
                    f"Column {name!r} of the result is named like a parameter.",
                    "Parameters are stored beside each row anyway: leave it out, or rename it.",
                )
            other = self._spelled.get(lower) or fresh.setdefault(lower, name)
            if other != name:
                raise BadResult(f"Columns {other!r} and {name!r} differ only by case.", "Rename one of the two.")
        self._spelled.update(fresh)

    def typed(self) -> Typed:
        """Points with a value that does not fit its column lose their rows; all others keep theirs."""
        refused: dict[int, str] = {}
        while True:
            columns, kinds, misfits = self._columns()
            if not misfits:
                return Typed(columns, kinds, refused)
            refused.update(misfits)
            self._drop(misfits.keys())

    def _columns(self) -> tuple[tuple[Column, ...], dict[str, Kind], dict[int, str]]:
        """Up to the first column in which something does not fit."""
        columns: list[Column] = []
        kinds: dict[str, Kind] = {}
        for name, values in self._values():
            kind, misfits = settled(values, self._known.get(name))
            if misfits:
                return (), {}, {self.points[row]: _misfit(name, values[row], was) for row, was in misfits.items()}
            if kind:
                columns.append(column(name, kind, values))
                kinds[name] = kind
        return tuple(columns), kinds, {}

    def _values(self) -> Iterator[tuple[str, list[Value]]]:
        """Column by column, by name."""
        if not self._records:
            return
        names = dict.fromkeys(chain(self._parameters, chain.from_iterable(self._names)))
        first = list(self._records[0])
        if all(map(first.__eq__, map(list, self._records))):  # as nearly always: then all are turned at once
            turned = dict(zip(first, zip(*map(dict.values, self._records))))  # noqa: B905
            yield from ((name, list(turned[name])) for name in names if name in turned)
        else:
            yield from ((name, [record.get(name) for record in self._records]) for name in names)

    def _drop(self, points: Collection[int]) -> None:
        kept = [i for i, point in enumerate(self.points) if point not in points]
        self.points = array("q", [self.points[i] for i in kept])
        self.rows = array("q", [self.rows[i] for i in kept])
        self._records = [self._records[i] for i in kept]


def _misfit(name: str, value: Value, was: Kind | None) -> str:
    if was is None:
        allowed = "integers of 64 bits or that are exact doubles, valid Unicode"
        return f"Column {name!r} is {shown(value)}.\nAllowed: {allowed}."
    kind = "int64 beyond the exact doubles" if was == "giant" else was
    return (
        f"Column {name!r} was {kind} so far and is {shown(value)} here.\n"
        "Allowed: one type in the whole run, or whole numbers that are exact doubles among doubles."
    )
