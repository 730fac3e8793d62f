"""What a job of `ems up` of a Slurm machine finds out on a node: `python -m ems.clusters.slurm.probe ROOT ANSWER`."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path

from ems import lab as laboratory
from ems.base import aside
from ems.base.errors import EmsError
from ems.databases import ClusterRow


def main(root: Path, answer: Path) -> None:
    """Write what was found into the file `answer`, as JSON."""
    found = {"database": _reached(root), "node": platform.node(), "cores": os.cpu_count(), "time": time.time()}
    aside.write(answer, json.dumps(found))


def _reached(root: Path) -> str:
    try:
        with laboratory.read(root).database() as database:
            database.record(ClusterRow, "none")
    except EmsError as error:
        return f"not reached from a compute node: {error.message}"
    return "reached from a compute node"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
