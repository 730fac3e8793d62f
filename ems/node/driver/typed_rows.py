"""Typed columns of the rows of many points.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from ems.node.driver.rows import BadResult, rows_of, shown
from ems.spool.batch import Column, ColumnType, Value

Kind = Literal["int64", "giant", "float64", "text", "bool"]  # giant: int64 with a value that is not an exact double

RESERVED = frozenset({"experiment_id", "point", "row", "rowid"})
_EXACT = 2**53
_NULL = type(None)
_KINDS: dict[type, Kind] = {int: "int64", float: "float64", str: "text", bool: "bool"}


def joined(known: Kind | None, found: Kind) -> Kind | None:
    """What a column is that was `known` and gets `found`; None where the two do not go together."""
    pair = {known or found, found}
    if len(pair) == 1:
        return found
    if pair == {"int64", "giant"}:
        return "giant"
    return "float64" if pair == {"int64", "float64"} else None


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
            kind, misfits = settled(name, values, self._known.get(name))
            if misfits:
                return (), {}, {self.points[row]: problem for row, problem in misfits.items()}
            if kind:
                columns.append(_column(name, kind, values))
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


def settled(name: str, values: list[Value], known: Kind | None) -> tuple[Kind | None, dict[int, str]]:
    """What a column is with these values, and what is wrong with those that do not fit, by their row.

    None for a column of which only nulls were seen.
    """
    quick = _quick_kind(values)
    kind = joined(known, quick) if quick else None
    if kind:
        return kind, {}
    kind, misfits = known, {}
    for row, value in enumerate(values):
        if value is None:
            continue
        found = _kind(value)
        merged = joined(kind, found) if found else None
        if merged:
            kind = merged
        else:
            misfits[row] = _misfit(name, value, kind if found else None)
    return kind, misfits


def _quick_kind(values: list[Value]) -> Kind | None:
    """Of a whole column at once; None where it has to be looked at value by value."""
    types: set[type] = set(map(type, values)) - {_NULL}
    if types == {float}:
        return "float64"
    if types == {bool}:
        return "bool"
    present: list[Any] = [value for value in values if type(value) in {int, str}]
    if types == {str}:
        return _kind("".join(present))
    if int in types and types <= {int, float} and max(present) <= _EXACT and min(present) >= -_EXACT:
        return "float64" if float in types else "int64"
    return None


def _kind(value: int | float | str) -> Kind | None:
    """None for what no column can hold."""
    if isinstance(value, str):
        return None if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value) else "text"
    if type(value) is int and not -_EXACT <= value <= _EXACT:
        if not -(2**63) <= value < 2**63:
            return None
        return "int64" if int(float(value)) == value else "giant"
    return _KINDS[type(value)]


def _misfit(name: str, value: Value, expected: Kind | None) -> str:
    if expected is None:
        return f"Column {name!r} is {shown(value)}.\nAllowed: integers from -2^63 to 2^63-1, valid Unicode."
    kind = "int64 beyond the exact doubles" if expected == "giant" else expected
    return (
        f"Column {name!r} was {kind} so far and is {shown(value)} here.\n"
        "Allowed: one type in the whole run, or whole numbers that are exact doubles among doubles."
    )


def _column(name: str, kind: Kind, values: list[Any]) -> Column:
    type_: ColumnType = "int64" if kind == "giant" else kind
    if type_ not in {"int64", "float64"}:
        return Column(name, type_, values)
    if None not in values:
        return Column(name, type_, array("d" if type_ == "float64" else "q", values))
    if type_ == "float64":
        values = [None if value is None else float(value) for value in values]
    return Column(name, type_, values)
