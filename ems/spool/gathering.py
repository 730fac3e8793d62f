"""Batches of the spool brought together, for databases where each call of `store` is dear."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ems.spool.batch import Batch, Column

GATHERED_MB = 64.0


def gathered(waiting: Iterable[tuple[Path, Batch]], most_mb: float) -> Iterator[tuple[list[Path], Batch]]:
    """Batches to store in turn, each with the files that it takes the place of; `waiting`: what each file has.

    Neighbours come together if they have the same columns, none replaces a point that an earlier one knows, and their
    files have `most_mb` together, or little more.
    """
    files: list[Path] = []
    batches: list[Batch] = []
    known: set[int] = set()
    size = 0
    for path, batch in waiting:
        if size > most_mb * 10**6:
            yield files, joined(batches)
            files, batches, known, size = [], [], set(), 0
        replaced = _replaced(batch)
        if batches and not (known.isdisjoint(replaced) and _alike(batches[0], batch)):
            yield files, joined(batches)
            files, batches, known, size = [], [], set(), 0
        files.append(path)
        batches.append(batch)
        known |= {*batch.points, *replaced}
        size += path.stat().st_size
    if batches:
        yield files, joined(batches)


def _replaced(batch: Batch) -> set[int]:
    return {*batch.replaces, *(mark.point for mark in batch.marks)}


def _alike(one: Batch, other: Batch) -> bool:
    return [(c.name, c.type) for c in one.columns] == [(c.name, c.type) for c in other.columns]


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches of the same columns, at least one, as one."""
    if len(batches) == 1:
        return batches[0]
    points, rows = array("q"), array("q")
    for batch in batches:
        points += batch.points
        rows += batch.rows
    columns = tuple(_joined_column(parts) for parts in zip(*(batch.columns for batch in batches), strict=True))
    replaces = tuple(point for batch in batches for point in batch.replaces)
    return Batch(points, rows, columns, replaces, tuple(mark for batch in batches for mark in batch.marks))


def _joined_column(parts: Sequence[Column]) -> Column:
    values: Any = []
    if all(isinstance(part.values, array) for part in parts):
        values = array("d" if parts[0].type == "float64" else "q")
    for part in parts:
        values.extend(part.values)
    return Column(parts[0].name, parts[0].type, values)
