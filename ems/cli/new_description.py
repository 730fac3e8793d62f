"""Experiment descriptions of EMS's first implementation, as grids: JSON with `table_name` and

params      a list of grids, each {name: values}
multi_res   the same, where `params` is missing or empty
parameters  one grid, where both are
stop_list   points, each {name: value}, that are not computed
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ems.base.errors import UserError
from ems.base.messages import nearest, show
from ems.cli import yaml_text as text
from ems.stack.fields import AXIS

KEYS = ("table_name", "params", "multi_res", "parameters", "stop_list")
MOST_GRIDS = 1_000  # into which a stop list may divide those of a file
Grid = dict[str, list[text.Value]]


@dataclass(frozen=True)
class Description:
    """`table`: as it is called there; `grids`: what is computed, without the points of its stop list."""

    table: str
    grids: tuple[Grid, ...]

    def lines(self, indent: int) -> list[str]:
        """Of `sweep:` in a stack file."""
        grids = [{name: text.axis(values) for name, values in grid.items()} for grid in self.grids]
        space = " " * indent
        if len(grids) == 1:
            return [f"{space}sweep:", *text.grid(grids[0], indent + 2)]
        return [f"{space}sweep:", *(line for grid in grids for line in text.grid(grid, indent + 2, bullet=True))]


def read(file: Path) -> Description:
    """What such a file says; UserError if it is not one, or has values that no grid can have."""
    said = _read(file)
    grids = [_grid(f"{file.name}: {where}", each) for where, each in _grids(file, said)]
    stop = said.get("stop_list") or []
    if not isinstance(stop, list) or not all(isinstance(point, dict) for point in stop):
        raise UserError(f"{file.name}: stop_list is {show(stop)}: allowed is a list of points, as [{{m: 1, n: 2}}].")
    for point in stop:
        grids = [part for grid in grids for part in _without(grid, point)]
        if len(grids) > MOST_GRIDS:
            hint = "Take stop_list out of the file, and leave its points out by `exclude:` in the stack file."
            raise UserError(f"{file.name}: its grids without stop_list are more than {MOST_GRIDS:,} grids.", hint)
    if not grids:
        raise UserError(f"{file.name}: stop_list leaves no point.")
    return Description(str(said.get("table_name") or file.stem), tuple(grids))


def _read(file: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}.") from error
    if not isinstance(said, dict) or not set(KEYS[1:4]) & set(said):
        found = ", ".join(map(str, said)) if isinstance(said, dict) else show(said)
        hint = f"Such a file is a JSON object with {', '.join(KEYS[:2])}, as the first implementation recorded them."
        raise UserError(f"{file.name} does not describe an experiment: it has {found}.", hint)
    for key in said:
        if key not in KEYS:
            raise UserError(f"{file.name}: {key} is not a key here: {nearest(str(key), KEYS)}.")
    return said


def _grids(file: Path, said: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    key = next((key for key in KEYS[1:4] if said.get(key)), "")
    if not key:
        raise UserError(f"{file.name} has no grid: {' and '.join(KEYS[1:4])} are empty.")
    value = said[key]
    if key == "parameters":
        yield key, value
        return
    if not isinstance(value, list):
        raise UserError(f"{file.name}: {key} is {show(value)}: allowed is a list of grids.")
    yield from ((f"{key}[{place}]", each) for place, each in enumerate(value))


def _grid(where: str, grid: object) -> Grid:
    if not isinstance(grid, dict) or not grid:
        raise UserError(f"{where} is {show(grid)}: allowed is a grid, as {{m: [1, 2], n: [3]}}.")
    return {name: _values(f"{where}.{name}", name, values) for name, values in grid.items()}


def _values(where: str, name: str, values: object) -> list[text.Value]:
    try:
        AXIS.check(name)
    except ValueError as error:
        raise UserError(f"{where} {error}.") from error
    listed = values if isinstance(values, list) else [values]
    for value in listed:
        if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise UserError(f"{where} has {show(value)}: allowed is text, a finite number, true or false.")
    if not listed:
        raise UserError(f"{where} is empty: allowed is one value or more.")
    return [value for place, value in enumerate(listed) if value not in listed[:place]]


def _without(grid: Grid, point: Mapping[str, Any]) -> Iterator[Grid]:
    """Grids that have together the points of `grid` but one: in each, another name has only its other values."""
    if set(point) != set(grid) or any(point[name] not in values for name, values in grid.items()):
        yield grid
        return
    names = list(grid)
    for place, name in enumerate(names):
        others = [value for value in grid[name] if value != point[name]]
        if others:
            yield {**grid, **{before: [point[before]] for before in names[:place]}, name: others}


def table(name: str) -> str:
    """A table's name as databases of today take it."""
    return re.sub(r"^[^a-z]+", "", re.sub(r"[^a-z0-9_]+", "_", name.lower())).strip("_")[:40] or "results"
