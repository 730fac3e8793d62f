"""What a job of `ems up` of a Slurm machine finds out on a node: `python -m ems.clusters.slurm.probe FOLDER`.

FOLDER has `agent.json`, as the folder of a run has it, and gets the answer.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ems import databases, stores
from ems.base import aside
from ems.base.errors import EmsError
from ems.clusters.slurm.survey import ANSWER
from ems.databases import ClusterRow
from ems.node.agent.config import AgentConfig


def main(folder: Path) -> None:
    """Write what was found, as JSON."""
    config = AgentConfig.read(folder)
    found = {
        "database": _reached(lambda: _ask_database(config)),
        "store": _reached(lambda: stores.connect(config.store, Path(config.root)).require()),
        "node": platform.node(),
        "cores": os.cpu_count(),
        "time": time.time(),
    }
    aside.write(folder / ANSWER, json.dumps(found))


def _ask_database(config: AgentConfig) -> None:
    with closing(databases.connect(config.database, Path(config.root))) as database:
        database.record(ClusterRow, "none")


def _reached(ask: Callable[[], None]) -> str:
    try:
        ask()
    except EmsError as error:
        return f"not reached from a compute node: {error.message}"
    return "reached from a compute node"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
