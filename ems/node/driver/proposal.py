"""What a proposer returned, as JSON: {"points": […]}, {"grids": […]}, or {} where there is nothing more to compute.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ems.node.driver.rows import BadResult, rows_of, shown

ALLOWED = (
    "allowed is a list of points, as [{'n': 10, 'rate': 0.5}]; a grid, as {'n': [10, 20]}, or a list of grids; a "
    "DataFrame with a point a row; or None, to end."
)


def told_of(result: Any) -> dict[str, list[Any]]:
    """The points or grids of what a proposer returned; BadResult says what is wrong with it."""
    if result is None or (isinstance(result, Sequence) and len(result) == 0):
        return {}
    items = [result] if isinstance(result, Mapping) else result
    if not isinstance(items, (list, tuple)):
        return _points(items)
    if not all(isinstance(item, Mapping) for item in items):
        odd = next(item for item in items if not isinstance(item, Mapping))
        raise BadResult(f"propose returned a list with {shown(odd)}: {ALLOWED}")
    grids = [item for item in items if any(map(_is_axis, item.values()))]
    if not grids:
        return _points(items)
    if len(grids) < len(items):
        raise BadResult(f"propose returned points and grids in one list: {ALLOWED}")
    try:
        return {"grids": [_plain(grid) for grid in grids]}
    except BadResult as error:
        raise _refused(error) from error


def _points(items: Any) -> dict[str, list[Any]]:
    try:
        points = rows_of(list(items) if isinstance(items, tuple) else items)
    except BadResult as error:
        raise _refused(error) from error
    return {"points": points} if points else {}


def _refused(error: BadResult) -> BadResult:
    """What cannot be a point, said of the proposer."""
    said = error.message.rstrip(".")
    of_function = said.removeprefix("The function ")
    return BadResult(f"propose {of_function}: {ALLOWED}" if of_function != said else f"propose: {said}: {ALLOWED}")


def _is_axis(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple, range)) or bool(getattr(value, "ndim", 0))


def _plain(value: Any) -> Any:
    """Of a grid: mappings, lists, and what numpy and its likes hold."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if type(value) not in {int, float, str, bool}:
        (row,) = rows_of({"value": value})
        return row["value"]
    return value
