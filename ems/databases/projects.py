"""The tree of projects."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter


def parents_first(parents: Mapping[str, str | None]) -> list[str]:
    """The ids, each after its parent; `parents`: of each id, None at the top."""
    above = {id: () if parent is None else (parent,) for id, parent in parents.items()}
    return list(TopologicalSorter(above).static_order())
