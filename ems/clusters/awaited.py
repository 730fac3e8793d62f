"""A place that nobody reaches from outside: its stack says `reach: runner`, and `ems runner` there takes the runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ems import clusters
from ems.base.messages import Say, quiet
from ems.clusters import Live, Place
from ems.databases import Experiment, Registration, State
from ems.lab import Lab


class Awaited(Place):
    """What a command elsewhere attends to: the row, which the place changes by itself.

    `place`: what the runner has run it. What is in the run's folder here, as in the runner's clone, is shown.
    """

    shares_files = starts_runs = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self._told: set[str] = set()

    def survey(self, lab: Lab, stack: str, settings: Mapping[str, Any], say: Say) -> Mapping[str, Any]:  # noqa: ARG002
        return {"reach": settings["reach"]}

    def prepare(self, lab: Lab, registration: Registration, say: Say) -> None:
        """The runner does."""

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:  # noqa: ARG002
        return True

    def release(self, lab: Lab, experiment_id: str, say: Say = quiet) -> None:
        """The runner does, once the experiment is finished."""

    def ensure_running(self, lab: Lab, experiment: Experiment) -> str:  # noqa: ARG002
        if experiment.state is State.RUNNING or experiment.id in self._told:
            return ""
        self._told.add(experiment.id)
        return _waits(experiment)

    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        """The runner does."""

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        """What is left of it is at the place."""

    def nudge(self, lab: Lab, experiment: Experiment) -> None:
        """The agent hears its orders with its next beat."""

    def log(self, lab: Lab, experiment: Experiment, start: int) -> bytes | None:
        return self._place.log(lab, experiment, start)

    def live(self, lab: Lab, experiment: Experiment) -> Live | None:
        if experiment.state is State.REGISTERED:
            return Live(waits=_waits(experiment))
        return self._place.live(lab, experiment)


def _waits(experiment: Experiment) -> str:
    return f"waits for whoever is at the place to say: ems runner {experiment.registration.cluster}"


@cache
def of_kind(kind: str) -> Awaited:
    """One for this process, which says once what it waits for. UserError as of `clusters.place`."""
    return Awaited(clusters.place(kind))
