"""Which of the lab's experiments somebody wants to see: by state, project, experimenter, and when they last changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ems.base.errors import UserError
from ems.base.messages import nearest, quoted
from ems.databases import Experiment, State
from ems.lab.line import under_way

UNITS = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
SPAN = re.compile(r"(\d{1,9}) ?(min|h|d|w)")


@dataclass(frozen=True)
class Selection:
    """What all experiments that are selected have in common; nothing: all are."""

    states: Collection[State] = ()
    project: str = ""
    experimenter: str = ""
    since: datetime | None = None

    def of(self, experiments: Sequence[Experiment]) -> list[Experiment]:
        """Those selected, first what is under way, then what changed last.

        UserError if there are experiments, but none of this project or experimenter: the name may be misspelt.
        """
        self._check("project", self.project, {each.registration.project for each in experiments})
        self._check("experimenter", self.experimenter, {each.registration.experimenter for each in experiments})
        chosen = [experiment for experiment in experiments if self._has(experiment)]
        return sorted(chosen, key=lambda each: (under_way(each), changed_at(each)), reverse=True)

    def _check(self, kind: str, wanted: str, known: Collection[str]) -> None:
        if wanted and known and wanted not in known:
            raise UserError(f"No experiment is of the {kind} {quoted(wanted)}: {nearest(wanted, known)}.")

    def _has(self, experiment: Experiment) -> bool:
        row = experiment.registration
        return (
            (not self.states or experiment.state in self.states)
            and self.project in ("", row.project)
            and self.experimenter in ("", row.experimenter)
            and (self.since is None or under_way(experiment) or changed_at(experiment) >= self.since)
        )


def changed_at(experiment: Experiment) -> datetime:
    """When it ended; of one that has not, when something was last heard of it."""
    return experiment.finished_at or max(experiment.registered_at, experiment.heartbeat_at or experiment.registered_at)


def since(text: str, now: datetime) -> datetime:
    """The moment meant by `30min`, `12h`, `2d`, `3w`, or by a date with or without time, which are local.

    UserError for anything else.
    """
    try:
        if span := SPAN.fullmatch(text.strip()):
            return now - timedelta(**{UNITS[span[2]]: int(span[1])})
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        what = "longer ago than any date" if SPAN.fullmatch(text.strip()) else "neither a time span nor a date"
        raise UserError(
            f"--since is {quoted(text)}: {what}.",
            "Allowed are a number of min, h, d or w, as 2d, and dates, as 2026-01-31 or 2026-01-31T14:00.",
        ) from None
