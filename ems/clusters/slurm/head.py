"""The agent of a run on a Slurm machine: `python -m ems.clusters.slurm.head RUN_DIR ENVIRONMENT`, in the head's job."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.clusters.slurm.crew import SlurmCrew
from ems.clusters.slurm.settings import Wanted
from ems.node import __main__ as node
from ems.node.agent.agent import Agent
from ems.node.agent.config import AgentConfig


def write(run_dir: Path, wanted: Wanted) -> None:
    """Have the head of this run know what holds."""
    aside.write(run_dir / "slurm.json", json.dumps(asdict(wanted)))


def agent(run_dir: Path, environment: Path) -> Agent:
    """That of a prepared run folder, with the experiment's environment on this node. UserError if it is not one."""
    said: dict[str, Any] = json.loads((run_dir / "slurm.json").read_text(encoding="utf-8"))
    said |= {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
    wanted = Wanted(**said)
    crew = SlurmCrew(run_dir, AgentConfig.read(run_dir).experiment_id, wanted, environment)
    return Agent(run_dir, crew, environment)


if __name__ == "__main__":
    sys.exit(node.main(sys.argv[1:], agent))
