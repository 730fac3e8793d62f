"""What a job of `ems up` of a Slurm machine finds out on a node: `python -m ems.clusters.slurm.probe ROOT ANSWER`."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ems import lab as laboratory
from ems.base import aside
from ems.base.errors import EmsError
from ems.databases import ClusterRow
from ems.lab import Lab


def main(root: Path, answer: Path) -> None:
    """Write what was found into the file `answer`, as JSON."""
    lab = laboratory.read(root)
    found = {
        "database": _reached(lambda: _ask_database(lab)),
        "store": _reached(lambda: lab.store().require()),
        "node": platform.node(),
        "cores": os.cpu_count(),
        "time": time.time(),
    }
    aside.write(answer, json.dumps(found))


def _ask_database(lab: Lab) -> None:
    with lab.database() as database:
        database.record(ClusterRow, "none")


def _reached(ask: Callable[[], None]) -> str:
    try:
        ask()
    except EmsError as error:
        return f"not reached from a compute node: {error.message}"
    return "reached from a compute node"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
