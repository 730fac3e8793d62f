"""The rounds of an experiment whose points results decide, and what came of proposing them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, TypedDict

import rich.table
import rich.text

from ems.base.console import Text
from ems.base.messages import counted
from ems.databases import Experiment, Round, rounds
from ems.node.agent.replay import Replayed
from ems.sweep import Sweep

LAST = 20  # rounds that are shown


class RoundObject(TypedDict):
    """One round."""

    round: Annotated[int, "Its number, from 1."]
    first_point: Annotated[int, "Number of its first point, from 0."]
    points: Annotated[int, "How many points it has; 0 where it says that there are no more rounds."]
    attempt: Annotated[int, "The run that proposed it; 0 for the grid of the stack file."]
    digest: Annotated[str, "SHA-256 of the rows and failures that it was proposed from; empty for the first grid."]
    same_rows: Annotated[bool | None, "Whether these rows are stored still; null without `--replay`."]
    difference: Annotated[str | None, "Where it differs if it is proposed again, or empty; null without `--replay`."]


def objects(experiment: Experiment, found: Sequence[Round], replayed: Sequence[Replayed]) -> list[RoundObject]:
    """All rounds in order, the grid of the stack file first."""
    again = {each.round.number: each for each in replayed}
    return [as_object(each, again) for each in (*_given(experiment), *found)]


def as_object(each: Round, again: Mapping[int, Replayed]) -> RoundObject:
    """The shape of one entry of `ems rounds --json`."""
    replayed = again.get(each.number)
    return {
        "round": each.number,
        "first_point": each.first_point,
        "points": each.points,
        "attempt": each.attempt,
        "digest": each.digest,
        "same_rows": replayed.same_rows if replayed else None,
        "difference": replayed.difference if replayed else None,
    }


def _given(experiment: Experiment) -> Iterator[Round]:
    if grids := rounds.first_grids(experiment.registration):
        yield Round(1, 0, len(Sweep.of(grids)), tuple(grids), "")


def page(experiment: Experiment, described: Sequence[RoundObject]) -> rich.text.Text:
    """A line for each of the last rounds."""
    begun = [each for each in described if each["points"]]
    total = sum(each["points"] for each in begun)
    lines = [
        Text.assemble(
            (experiment.registration.stack, "bold"), f": {counted(len(begun), 'round')}, {counted(total, 'point')}"
        )
    ]
    if len(described) > LAST:
        lines.append(Text(f"the last {LAST} of them; all: --json", "dim"))
    return Text("\n").join([*lines, *map(_line, described[-LAST:])])


def _line(each: RoundObject) -> rich.text.Text:
    first, points = each["first_point"], each["points"]
    said = f"{counted(points, 'point')} from {first:,} on" if points else "no more were proposed"
    return Text.assemble(f"  round {each['round']:,}  {said}", *_replay(each))


def _replay(each: RoundObject) -> Iterator[tuple[str, str]]:
    if each["difference"]:
        yield f"  {each['difference']}", "red"
    elif each["difference"] is not None:
        yield "  proposed again: the same", "green"
    if each["same_rows"] is False:
        yield "; the rows that it was proposed from have changed since", "yellow"


def differs(described: Sequence[RoundObject]) -> bool:
    """Whether a round that was proposed again is another one."""
    return any(each["difference"] for each in described)
