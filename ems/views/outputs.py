"""The files that jobs left in EMS_OUTPUT_DIR, and where they were brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol, TypedDict

from rich.table import Table

from ems.base.messages import counted
from ems.databases import Experiment, Output
from ems.node.agent.tidying import size

MOST_SHOWN = 200


class OutputObject(TypedDict):
    """One file."""

    point: Annotated[int, "Number of the point that left it, from 0; of a command without a grid 0."]
    name: Annotated[str, "Its path below the folder that EMS_OUTPUT_DIR named, with slashes."]
    digest: Annotated[str, "SHA-256 of its content, by which the store has it."]
    size: Annotated[int, "Its size in bytes."]
    media_type: Annotated[str, "What it is by the ending of its name, as image/png."]
    attempt: Annotated[int, "Number of the run that stored it, or copied it with its point."]
    path: Annotated[str | None, "Where it was brought; null without `--to`."]


def as_object(output: Output, path: str | None = None) -> OutputObject:
    """The shape of one entry of `ems outputs --json`."""
    return {
        "point": output.point,
        "name": output.name,
        "digest": output.digest,
        "size": output.size,
        "media_type": output.media_type,
        "attempt": output.attempt,
        "path": path,
    }


def table(found: Sequence[Output], *, points: bool) -> Table:
    """A line for each of the first files."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    columns = (*(("point",) if points else ()), "file", "size", "type", "attempt", "SHA-256")
    for name in columns:
        made.add_column(name, overflow="fold", justify="right" if name in {"point", "size", "attempt"} else "left")
    for output in found[:MOST_SHOWN]:
        point = (f"{output.point:,}",) if points else ()
        made.add_row(*point, output.name, size(output.size), output.media_type, str(output.attempt), output.digest[:12])
    return made


def sums(found: Sequence[Output], experiment: Experiment) -> str:
    """As `3 files, 1.2 MB`, and whether there may be more."""
    more = f" Shown are the first {MOST_SHOWN}; --json has all." if len(found) > MOST_SHOWN else ""
    so_far = "" if experiment.state.finished else " so far"
    return f"{total(found)}{so_far}.{more}"


class Sized(Protocol):
    """What has a size in bytes."""

    @property
    def size(self) -> int:
        """In bytes."""


def total(found: Sequence[Sized]) -> str:
    """As `3 files, 1.2 MB`."""
    return f"{counted(len(found), 'file')}, {size(sum(output.size for output in found))}"
