from __future__ import annotations

import dataclasses

import psutil
import pytest

from ems.clusters.laptop.place import Laptop
from ems.databases import Experiment
from ems.lab import Lab
from ems.node.agent.config import AgentConfig
from tests.place_contract import PlaceContract


class OnThisMachine(PlaceContract):
    """The hooks of places whose agent is a process of this machine, in the lab's own folder."""

    def agents(self, lab: Lab, experiment: Experiment) -> list[psutil.Process]:
        run_dir = str(lab.run_dir(experiment.id))
        return [process for process in psutil.process_iter(["cmdline"]) if run_dir in (process.info["cmdline"] or [])]

    def kill(self, lab: Lab, experiment: Experiment) -> None:
        agents = self.agents(lab, experiment)
        assert agents
        for agent in agents:
            agent.kill()
        psutil.wait_procs(agents)

    def spoil(self, lab: Lab, experiment: Experiment) -> None:
        (lab.run_dir(experiment.id) / "agent.json").write_text("{}")

    def beat_seldom(self, lab: Lab, experiment: Experiment) -> None:
        run_dir = lab.run_dir(experiment.id)
        dataclasses.replace(AgentConfig.read(run_dir), beat_s=60.0, lease_s=300.0).write(run_dir)


class TestLaptop(OnThisMachine):
    @pytest.fixture
    def place(self, here):
        return Laptop()
