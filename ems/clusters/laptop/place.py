"""The machine that `ems up` runs on: environments are built in the user's cache, the agent is a process of its own."""

from __future__ import annotations

import subprocess

from ems.clusters import Live, Place, local
from ems.databases import Experiment, Registration
from ems.errors import EmsError
from ems.lab import Lab
from ems.messages import Say, quiet
from ems.node.agent.config import AgentConfig, tell_to_listen

MOST_STARTS = 5  # of an agent that does not live, before its error is a person's to fix


class Laptop(Place):
    needs_remote = False
    stops_with_its_command = True

    def __init__(self) -> None:
        self._agents: dict[str, list[subprocess.Popen[bytes]]] = {}

    def prepare(self, lab: Lab, registration: Registration, say: Say) -> None:
        local.prepare(lab, registration, say)

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        return AgentConfig.exists(lab.run_dir(experiment_id))

    def release(self, lab: Lab, experiment_id: str) -> None:
        local.release(lab, experiment_id)

    def ensure_running(self, lab: Lab, experiment: Experiment) -> None:
        started = self._agents.setdefault(experiment.id, [])
        run_dir = lab.run_dir(experiment.id)
        if (started and started[-1].poll() is None) or local.is_attended(run_dir, experiment):
            return
        if len(started) >= MOST_STARTS:
            raise EmsError(f"The agent ended {MOST_STARTS} times without a result.", f"See {run_dir / 'agent.log'}")
        if AgentConfig.exists(run_dir):
            local.stage_inputs(lab, experiment.registration, quiet)
        else:
            local.prepare(lab, experiment.registration, quiet)
        started.append(local.start_agent(run_dir))

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        run_dir = lab.run_dir(experiment.id)
        if AgentConfig.exists(run_dir):
            local.start_agent(run_dir).wait()

    def nudge(self, lab: Lab, experiment: Experiment) -> None:
        tell_to_listen(lab.run_dir(experiment.id))

    def log(self, lab: Lab, experiment: Experiment, start: int) -> bytes | None:
        return local.log(lab.run_dir(experiment.id), start)

    def live(self, lab: Lab, experiment: Experiment) -> Live | None:
        return local.live(lab.run_dir(experiment.id), experiment)


PLACE = Laptop()
