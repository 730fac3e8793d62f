"""The agent of a run on a Slurm machine: `python -m ems.clusters.slurm.head RUN_DIR ENVIRONMENT`, in the head's job."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ems.clusters.slurm.crew import SlurmCrew
from ems.clusters.slurm.wanted import FILE, Wanted
from ems.node import __main__ as node
from ems.node.agent.agent import Agent
from ems.node.agent.config import AgentConfig


def agent(run_dir: Path, environment: Path) -> Agent:
    """That of a prepared run folder, with the experiment's environment on this node. UserError if it is not one."""
    wanted = Wanted.of(json.loads((run_dir / FILE).read_text(encoding="utf-8")))
    crew = SlurmCrew(run_dir, AgentConfig.read(run_dir).experiment_id, wanted, environment)
    return Agent(run_dir, crew, environment)


if __name__ == "__main__":
    sys.exit(node.main(sys.argv[1:], agent))
