"""The machine that `ems up` runs on: environments are built in the user's cache, the agent is a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ems.base.messages import Say, quiet
from ems.clusters import Live, Place, local
from ems.databases import Experiment, Registration
from ems.lab import Lab
from ems.node import run_folder
from ems.node.agent.config import tell_to_listen
from ems.node.agent.lock import dismiss

if TYPE_CHECKING:
    from ems.provenance.environment import Environment


class Laptop(Place):
    """This machine and the lab's own folder. Ctrl-C cancels a run, and its commit need not be on a remote."""

    needs_remote = needs_server = False

    def __init__(self) -> None:
        self._agents = local.Agents()

    def build(self, environment: Environment, say: Say) -> None:
        from ems.provenance import building

        building.build(environment, say)

    def prepare(self, lab: Lab, registration: Registration, say: Say) -> None:
        local.prepare(lab, registration, say)

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        return local.is_prepared(lab, experiment_id)

    def release(self, lab: Lab, experiment_id: str, say: Say = quiet) -> None:  # noqa: ARG002
        self._agents.forget(experiment_id)
        local.release(lab, experiment_id)

    def expect(self, lab: Lab, registration: Registration) -> None:
        self._agents.expect(lab, registration.id)

    def ensure_running(self, lab: Lab, experiment: Experiment) -> str:
        return self._agents.ensure_running(lab, experiment)

    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        dismiss(lab.run_dir(experiment_id))

    def stops_with_its_command(self, lab: Lab, experiment: Experiment) -> bool:
        return local.is_of_this_machine(lab.run_dir(experiment.id), experiment)

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        self._agents.settle(lab, experiment)

    def nudge(self, lab: Lab, experiment: Experiment) -> None:
        tell_to_listen(lab.run_dir(experiment.id))

    def log(self, lab: Lab, experiment: Experiment, start: int) -> bytes | None:
        return run_folder.log(lab.run_dir(experiment.id), start)

    def live(self, lab: Lab, experiment: Experiment) -> Live | None:
        return local.live(lab.run_dir(experiment.id), experiment)


PLACE = Laptop()
