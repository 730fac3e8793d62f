"""The names of EMS's resource types."""

from __future__ import annotations

from ems.databases import Record

EXPERIMENT, RUN = "ems:index:Experiment", "ems:index:Run"


def token(kind: str) -> str:
    """The resource type of a kind of place: `laptop` → `ems:index:Laptop`."""
    return f"ems:index:{kind.capitalize()}"


def row_token(kind: type[Record]) -> str:
    """The resource type of a row."""
    return f"ems:index:{kind.__name__.removesuffix('Row')}"
