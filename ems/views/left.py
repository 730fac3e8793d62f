"""What jobs left unread beside their results, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, TypedDict

from rich.table import Table

from ems.base.messages import counted
from ems.databases import Experiment
from ems.lab.left import Left, of_row
from ems.node.agent.leftovers import FileLeft, is_checkpoint
from ems.node.agent.tidying import shown, size

MOST_SHOWN = 20


class CleanObject(TypedDict):
    """What the jobs of one experiment left."""

    stack: Annotated[str, "Name of the stack."]
    experiment_id: Annotated[str, "Id of the experiment, a UUID."]
    folder: Annotated[str, "Where the files are, or were, on this machine; empty if they are on another one."]
    files: Annotated[list[FileLeft], "The files; of many, folders with such."]
    result: Annotated[str, "`removed`, `to be removed`, or `kept: …` with the reason."]


def result_of(left: Left, *, removed: bool) -> str:
    """What became of it, or is to become of it."""
    if left.folder is None:
        return f"kept: not on this machine, it ran as {left.experiment.agent}"
    return "removed" if removed else "to be removed"


def as_object(left: Left, *, removed: bool) -> CleanObject:
    """The shape of `ems clean --json`."""
    return {
        "stack": left.experiment.registration.stack,
        "experiment_id": left.experiment.id,
        "folder": str(left.folder or ""),
        "files": list(left.files),
        "result": result_of(left, removed=removed),
    }


def table(found: Sequence[Left], *, removed: bool) -> Table:
    """A line for each file or folder of files."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("experiment", "attempt", "file", "files", "size", "result"):
        made.add_column(name, overflow="fold", justify="right" if name in {"attempt", "files", "size"} else "left")
    for left in found:
        for file in left.files:
            cells = (
                left.experiment.id[:8],
                str(file["attempt"]),
                file["name"],
                f"{file['files']:,}",
                size(file["bytes"]),
            )
            made.add_row(*cells, result_of(left, removed=removed))
    return made


def sums(found: Sequence[Left]) -> str:
    """As `3 files, 1.2 MB`."""
    return _sum([file for left in found for file in left.files])


def _sum(files: Sequence[FileLeft]) -> str:
    return f"{counted(sum(file['files'] for file in files), 'file')}, {size(sum(file['bytes'] for file in files))}"


def lines(experiment: Experiment) -> list[str]:
    """What its jobs left, where that is, and how it goes; nothing if there is nothing."""
    files = of_row(experiment)
    kept = [file for file in files if is_checkpoint(file)]
    unread, stack = [file for file in files if file not in kept], experiment.registration.stack
    said = [f"Its checkpoint ({_sum(kept)}) is kept: the next run goes on from it; to begin anew: ems clean {stack}"]
    return [*(_unread(experiment, unread) if unread else ()), *(said if kept else ())]


def _unread(experiment: Experiment, files: Sequence[FileLeft]) -> Iterator[str]:
    newest = files[-1]["attempt"]
    named = [
        f"attempt {file['attempt']}: {shown(file)}" if file["attempt"] != newest else shown(file) for file in files
    ]
    more = f" and {len(named) - MOST_SHOWN} more" if len(named) > MOST_SHOWN else ""
    yield f"Left unread by its job ({_sum(files)}): {', '.join(named[-MOST_SHOWN:])}{more}"
    yield f"They are in {folder(experiment)}; remove them: ems clean {experiment.registration.stack}"


def folder(experiment: Experiment) -> str:
    """Where they are kept, from the folder of the lab in which it ran."""
    return f".ems/runs/{experiment.id}/left"


def note(experiment: Experiment) -> str:
    """As `2 files left`; "" if there are none."""
    files = [file for file in of_row(experiment) if not is_checkpoint(file)]
    return f"{counted(sum(file['files'] for file in files), 'file')} left" if files else ""
