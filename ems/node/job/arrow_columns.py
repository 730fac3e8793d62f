"""Columns of a run from Arrow arrays, whichever file they came in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ems.node.job.columns import KnownTypes, Misfit
from ems.node.job.results_file import ResultsError
from ems.spool.batch import Column

HINT = "Columns are numbers, text, booleans, dates or times; numbers beyond doubles and 64 bits: as text."


def columns_of(path: Path, names: Iterable[str], arrays: Sequence[Any], types: KnownTypes) -> list[Column]:
    """Columns of `arrays` (pyarrow.Array), without those without a value so far. ResultsError names `path`."""
    found = (_column(path, name, values, types) for name, values in zip(names, arrays, strict=True))
    return [column for column in found if column]


def _column(path: Path, name: str, values: Any, types: KnownTypes) -> Column | None:
    from ems.node.job.arrow import from_arrow

    try:
        return types.typed(name, from_arrow(name, values))
    except (Misfit, TypeError, ValueError) as error:
        raise ResultsError(f"{path}: {error}.", HINT) from error
