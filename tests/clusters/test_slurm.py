"""A Slurm machine, for real: its controller, three nodes, accounting."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ems.clusters import local
from ems.clusters.slurm.place import Slurm
from ems.databases import Experiment
from ems.lab import Lab
from ems.node.agent.config import AgentConfig
from tests.clusters.slurm_server import SlurmServer, started
from tests.place_contract import PlaceContract
from tests.processes import having

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmServer]:
    with started() as server:
        yield server


class TestSlurm(PlaceContract):
    @pytest.fixture(autouse=True)
    def reached(self, slurm: SlurmServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name, value in slurm.variables.items():
            monkeypatch.setenv(name, value)

    @pytest.fixture
    def place(self, here: Lab, slurm: SlurmServer) -> Iterator[Slurm]:
        place = Slurm()
        place._queue._file = here.root / "queue.json"
        yield place
        slurm.tried("scancel", "--full", "--me")

    def kill(self, lab: Lab, experiment: Experiment) -> None:
        agents = having(str(lab.run_dir(experiment.id)), having("ems.node", psutil.process_iter()))
        agents = [agent for agent in agents if agent.name().startswith("python")]
        assert agents
        for agent in agents:
            agent.kill()

    spoilt = "spool-5"

    def spoil(self, lab: Lab, experiment: Experiment) -> None:
        for attempt in range(1, 1 + local.MOST_STARTS):
            (lab.run_dir(experiment.id) / f"spool-{attempt}").write_text("a file where a folder must be")

    def beat_seldom(self, lab: Lab, experiment: Experiment) -> None:
        run_dir = lab.run_dir(experiment.id)
        dataclasses.replace(AgentConfig.read(run_dir), beat_s=60.0, lease_s=300.0).write(run_dir)
