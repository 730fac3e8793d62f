"""The agent of a run on an instance: `python -m ems.node.aws.head RUN_DIR ENVIRONMENT`, from BOOT."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

from ems.node import __main__ as node
from ems.node.agent.agent import Agent
from ems.node.agent.config import AgentConfig
from ems.node.agent.endings import GOES_ON
from ems.node.aws.boot import NodeConfig
from ems.node.aws.crew import AwsCrew

PAUSE_S = 2.0


class Head(Agent):
    """It leaves once the run is over, and not before: the lease of a head that died has to end first."""

    def run(self) -> int:
        """0 if the run's end is in the row; else as `Agent.run`."""
        while not self._stopping:
            code = super().run()
            if code or self._is_over():
                return code
            time.sleep(PAUSE_S)
        return GOES_ON

    def _is_over(self) -> bool:
        with closing(self._connect()) as database:
            state = self._state(database)
        return not self._stopping and (state is None or state.finished)


def agent(run_dir: Path, environment: Path) -> Head:
    """That of a prepared run folder."""
    told = NodeConfig.read(run_dir.parent / "config.json")
    crew = AwsCrew(run_dir, told, AgentConfig.read(run_dir).grace_s) if told.workers else None
    return Head(run_dir, crew, environment)


if __name__ == "__main__":
    sys.exit(node.main(sys.argv[1:], agent))
