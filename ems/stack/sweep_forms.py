"""The grids of a sweep as an experiment records them and as its id is computed from them.

What an id hashes is older than some of what is recorded: 2.0 is hashed as 2 (Pulumi's JSON does not tell them apart),
and neither the bits of seeds nor what grids share is hashed. So ids stay, and recorded grids keep their meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ems.stack.fields import as_hashed, as_pulumi_writes
from ems.stack.sweep_overlap import Box, disjoint, form
from ems.sweep import Sweep, groups_of
from ems.sweep.axes import typed
from ems.sweep.seeds import BITS

Grid = Mapping[str, Any]


def recorded(grids: Sequence[Grid]) -> tuple[Grid, ...]:
    """Valid grids of a stack file as they are recorded and computed: seeds of 31 bits, each combination once.

    TooManyParts or TooLong if it cannot be told what they share.
    """
    marked = tuple(_changed(grid, _marked) for grid in grids)
    types = Sweep.of(marked).types
    boxes = [
        tuple({name: typed(values, types[name]) for name, values in group.items()} for group in groups_of(grid))
        for grid in marked
    ]
    parts = list(disjoint(boxes))
    if all(len(found) == 1 and found[0] is box for box, found in zip(boxes, parts, strict=True)):
        return marked
    return tuple(_written(box) for found in parts for box in found)


def hashed(grids: Sequence[Grid]) -> tuple[Grid, ...]:
    """The same grids as ids are computed from them."""
    return tuple(_changed(grid, _plain) for grid in grids)


def _written(box: Box) -> Grid:
    alone = {name: form(values) for group in box if len(group) == 1 for name, values in group.items()}
    zipped = [{name: form(values) for name, values in group.items()} for group in box if len(group) > 1]
    return {**alone, "zip": zipped} if zipped else alone


def _changed(grid: Grid, change: Callable[[Any], Any]) -> Grid:
    """The grid with each axis changed."""
    groups = [{name: change(axis) for name, axis in group.items()} for group in grid.get("zip", ())]
    alone = {name: change(axis) for name, axis in grid.items() if name != "zip"}
    return {**alone, "zip": groups} if groups else alone


def _marked(axis: Any) -> Any:
    return {**axis, "bits": BITS} if isinstance(axis, Mapping) and "count" in axis else axis


def _plain(axis: Any) -> Any:
    if not isinstance(axis, Mapping):
        return [as_hashed(value) for value in axis]
    if "range" in axis:
        return {"range": [as_pulumi_writes(number) for number in axis["range"]]}
    return {key: value for key, value in axis.items() if key != "bits"}
