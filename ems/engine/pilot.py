"""`ems up --pilot`: how many points a random sample has, and the row that asks for it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

from ems.base.errors import Busy, UserError
from ems.databases import RETRYABLE, Experiment, Registration, State

ALLOWED = "Allowed is a number of points, 1 or more, as --pilot 200, or a share of them, up to 100%, as --pilot 1%."


@dataclass(frozen=True)
class Pilot:
    """A sample of so many points, or of so many percent of them."""

    points: int = 0
    percent: float = 0.0

    @classmethod
    def of(cls, text: str) -> Pilot:
        """As it is written on a command line; UserError if it is neither."""
        number, is_share = text.strip().removesuffix("%"), text.strip().endswith("%")
        try:
            found = cls(percent=float(number)) if is_share else cls(points=int(number))
        except ValueError:
            found = cls()
        if found.points > 0 or 0 < found.percent <= 100:
            return found
        raise UserError(f"--pilot is {text!r}.", ALLOWED)

    def size(self, total: int) -> int:
        """Of `total` points: one at least, all at most."""
        return min(max(self.points, math.ceil(total * self.percent / 100), 1), total)


def piloted(row: Registration, pilot: Pilot, before: Experiment | None, *, retry: bool) -> Registration:
    """The row with a pilot, as far as there is more to do than is done: a pilot never undoes what a run has reached.

    UserError for a command and for rounds, Busy if all points are being computed already.
    """
    job = json.loads(row.spec)["job"]
    if job.get("propose") or "sweep" not in job:
        what = "a sweep whose points results decide" if job.get("propose") else "one command"
        raise UserError(f"{row.stack} runs {what}: nothing to take a sample of.", f"Run it: ems up {row.stack}")
    size = pilot.size(row.points_total)
    if before is None or (before.state in RETRYABLE and retry):
        return replace(row, pilot=size)
    was = before.registration.pilot
    if before.state is State.RUNNING and was is None:
        raise Busy(
            f"{row.stack} is under way with all of its points.",
            f"Watch it: ems watch {row.stack}; or stop it first: ems stop {row.stack}",
        )
    if before.state.finished and before.state is not State.PILOTED:
        return replace(row, pilot=was)
    return replace(row, pilot=max(size, was or 0))
