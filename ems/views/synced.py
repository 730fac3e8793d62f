"""What was fetched of runs that do not reach the lab's database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypedDict

from ems.base.console import Text
from ems.clusters.fetching import Synced
from ems.lab.line import progress_line
from ems.node.agent.tidying import size


class SyncedObject(TypedDict):
    """What one call of `ems sync` has fetched of one experiment."""

    stack: Annotated[str, "Name of the stack."]
    experiment_id: Annotated[str, "Id of the experiment, a UUID."]
    state: Annotated[str, "State of the experiment, as of `ems status`, once that was fetched."]
    batches: Annotated[int, "How many batches of rows, and lists of files, were fetched and stored."]
    bytes: Annotated[int, "How many bytes were fetched, of these and of files."]
    batches_left: Annotated[int, "How many of them still wait at the place, as far as it was heard."]
    bytes_left: Annotated[int, "How many bytes these have."]
    error: Annotated[str, "Why not all could be fetched; empty if it was."]


def as_object(synced: Synced) -> SyncedObject:
    """The shape of `ems sync --json`."""
    fetched = synced.fetched
    return {
        "stack": synced.experiment.registration.stack,
        "experiment_id": synced.experiment.id,
        "state": str(synced.experiment.state),
        "batches": fetched.batches,
        "bytes": fetched.bytes,
        "batches_left": fetched.batches_left,
        "bytes_left": fetched.bytes_left,
        "error": str(synced.error) if synced.error else "",
    }


def page(found: Sequence[Synced]) -> Text:
    """A line for each experiment, and what is wrong with it below that."""
    text = Text("")
    for number, line in enumerate(line for synced in found for line in _lines(synced)):
        text.append("\n" if number else "").append(line)
    return text


def _lines(synced: Synced) -> list[Text]:
    fetched = synced.fetched
    said = f"{fetched.batches:,} batch{'' if fetched.batches == 1 else 'es'} fetched ({size(fetched.bytes)})"
    left = f", {fetched.batches_left:,} left ({size(fetched.bytes_left)})" if fetched.batches_left else ""
    first = Text(f"{synced.experiment.registration.stack}: {said}{left} · {progress_line(synced.experiment)}")
    return [first, *([Text(str(synced.error), "yellow")] if synced.error else [])]
