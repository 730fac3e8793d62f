"""The place of what was imported: no run of EMS was ever anywhere."""

from __future__ import annotations

from ems.base.errors import EmsError
from ems.base.messages import Say, quiet
from ems.clusters import Live, Place
from ems.databases import Experiment, Registration
from ems.lab import Lab


class Nowhere(Place):
    """Has no log and nothing to release. It cannot be chosen in a stack file."""

    needs_remote = False

    def prepare(self, lab: Lab, registration: Registration, say: Say) -> None:  # noqa: ARG002
        raise _cannot_run(registration)

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:  # noqa: ARG002
        return False

    def release(self, lab: Lab, experiment_id: str, say: Say = quiet) -> None:
        """There is nothing."""

    def ensure_running(self, lab: Lab, experiment: Experiment) -> str:  # noqa: ARG002
        raise _cannot_run(experiment.registration)

    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        """Nobody is at work."""

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        """Nothing is left."""

    def nudge(self, lab: Lab, experiment: Experiment) -> None:
        """A command that imports hears its orders with its next beat."""

    def log(self, lab: Lab, experiment: Experiment, start: int) -> bytes | None:  # noqa: ARG002
        return None

    def live(self, lab: Lab, experiment: Experiment) -> Live | None:  # noqa: ARG002
        return None


def _cannot_run(row: Registration) -> EmsError:
    return EmsError(f"{row.stack} was imported: there is nothing to run.", f"See its rows: ems results {row.stack}")
