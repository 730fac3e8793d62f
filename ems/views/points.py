"""Which points of a sweep are still to be computed: written out point by point, in flat memory."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import IO, Annotated, Any, Literal, NamedTuple, TypedDict

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from ems.base.console import Text
from ems.base.messages import counted
from ems.databases import PointState
from ems.node.agent.point_count import set_bits
from ems.node.driver.ranges import Range, count_open, open_ranges
from ems.spool.batch import Value, jsonable
from ems.sweep import Sweep
from ems.views.results import quoted

MOST_SHOWN = 20
OpenState = Literal["missing", "failed", "due"]
STATES: tuple[OpenState, ...] = ("missing", "failed", "due")
_INVERTED = bytes(255 - byte for byte in range(256))


class PointObject(TypedDict):
    """One point that is not stored."""

    point: Annotated[int, "Number of the point in the grid, from 0."]
    state: Annotated[
        str, "`missing`: not computed yet; `due`: failed, and to be computed again; `failed`: until `ems up --retry`."
    ]
    parameters: Annotated[dict[str, Any], "The parameters of the point, by name."]


class OpenPoint(NamedTuple):
    """A point that is not stored."""

    number: int
    state: OpenState
    parameters: Mapping[str, Any]


class OpenPoints:
    """The points of a sweep that are not stored, by their numbers. `stack`: whose; `total`: of how many."""

    def __init__(self, stack: str, sweep: Sweep, left_out: bytes, known: Iterable[tuple[PointState, range]]) -> None:
        """`left_out`: a bitmap, as of `exclusion.of_job`; `known`: as `Database.points` gives them."""
        self.stack, self.sweep = stack, sweep
        size = (len(sweep) + 7) // 8
        self.total = count_open(left_out or bytes(size), len(sweep))
        self._bits: dict[OpenState, bytes] = {}
        marked = {"stored": bytearray(left_out or size), "failed": bytearray(size), "due": bytearray(size)}
        for state, points in known:
            set_bits(marked["stored"], points.start, points.stop)
            if state in {"failed", "due"}:
                set_bits(marked[state], points.start, points.stop)
        self._bits["missing"] = bytes(marked["stored"])
        self._bits |= {state: bytes(marked[state]).translate(_INVERTED) for state in STATES[1:]}

    def count(self, states: Collection[OpenState]) -> int:
        """How many are in one of these states."""
        return sum(count_open(self._bits[state], len(self.sweep)) for state in states)

    def walk(self, states: Collection[OpenState]) -> Iterator[OpenPoint]:
        """Those in one of these states."""
        for (first, last), state in merge(*(self._ranges(state) for state in states)):
            for number, parameters in enumerate(self.sweep.iterate(first, last), first):
                yield OpenPoint(number, state, parameters)

    def _ranges(self, state: OpenState) -> Iterator[tuple[Range, OpenState]]:
        return ((found, state) for found in open_ranges(self._bits[state], len(self.sweep)))


def chosen(*, missing: bool, failed: bool) -> tuple[OpenState, ...]:
    """The states that options ask for: of neither, all."""
    if missing == failed:
        return STATES
    return ("missing", "due") if missing else ("failed",)


def as_object(point: OpenPoint) -> PointObject:
    """The shape of one entry of `ems points --json`."""
    return {"point": point.number, "state": point.state, "parameters": jsonable(point.parameters)}


def write_json(points: Iterable[OpenPoint], file: IO[str]) -> None:
    """An array of objects, one a line."""
    begin = "[\n"
    for point in points:
        file.write(begin + json.dumps(as_object(point), ensure_ascii=False))
        begin = ",\n"
    file.write("[]\n" if begin == "[\n" else "\n]\n")


def write_csv(points: Iterable[OpenPoint], names: Sequence[str], file: IO[str]) -> None:
    """Columns: point, point_state, and the parameters. Text is in quotes; a parameter that a point lacks is empty."""
    file.write(",".join(["point", "point_state", *names]) + "\n")
    for point in points:
        cells = (_cell(point.parameters.get(name)) for name in names)
        file.write(",".join([str(point.number), point.state, *cells]) + "\n")


def _cell(value: Value) -> str:
    if isinstance(value, str):
        return quoted(value)
    return "" if value is None else repr(value)


def table(points: OpenPoints, states: Collection[OpenState]) -> RenderableType:
    """How many there are, the first of them, and how to get all."""
    counts = {state: points.count([state]) for state in states}
    total = sum(counts.values())
    parts = [f"{number:,} {state}" for state, number in counts.items() if number]
    if not total:
        return Text(f"{points.stack}: of {counted(points.total, 'point')} {_none(states)}")
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("point", "state", *points.sweep.names):
        shown.add_column(Text(name), overflow="fold", justify="right" if name == "point" else "left")
    for point in islice(points.walk(states), MOST_SHOWN):
        values = (point.parameters.get(name, "") for name in points.sweep.names)
        shown.add_row(f"{point.number:,}", point.state, *map(str, values))
    title = Text(f"{points.stack}: {counted(total, 'point')} not stored: {', '.join(parts)}")
    more = [Text(f"All of them: ems points {points.stack} --csv", "dim")] if total > MOST_SHOWN else []
    return Group(title, shown, *more)


def _none(states: Collection[OpenState]) -> str:
    if len(states) == len(STATES):
        return "all are stored"
    return "none failed" if "failed" in states else "none is to be computed"
