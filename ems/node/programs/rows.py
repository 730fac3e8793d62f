"""Rows of a program that repeats the parameters of its point in them."""

from __future__ import annotations

from collections.abc import Mapping

from ems.node.driver.rows import BadResult
from ems.spool.batch import Value

Rows = list[dict[str, Value]]


def without_parameters(parameters: Mapping[str, Value], rows: Rows) -> Rows:
    """The rows without columns that are called like parameters of the point, which have the same values.

    BadResult at another value: which of the two is meant is not known.
    """
    lower = {name.lower(): name for name in parameters}
    repeated = {name for row in rows for name in row if isinstance(name, str) and name.lower() in lower}
    if not repeated:
        return rows
    for row in rows:
        for name in repeated & row.keys():
            _refuse_other(name, row[name], parameters[lower[name.lower()]])
    return [{name: value for name, value in row.items() if name not in repeated} for row in rows]


def _refuse_other(name: str, found: Value, parameter: Value) -> None:
    if found is None or found == parameter or str(found) == str(parameter):
        return
    raise BadResult(
        f"Column {name!r} of the result is named like a parameter, and is {found!r} where that is {parameter!r}.",
        "Parameters are stored beside each row anyway: leave it out, or rename it.",
    )
