"""The agent of a run on a server: `python -m ems.node.hosted RUN_DIR ENVIRONMENT`, once the run has its share of it."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

from ems.base import aside
from ems.node import __main__ as node
from ems.node import leases, memory
from ems.node.agent.agent import Agent
from ems.node.leases import Machine, Share

FILE = "share.json"  # in the run's folder

log = logging.getLogger("ems.server")


def write(folder: Path, machine: Machine, share: Share) -> Path:
    """Say what the run takes, and of what."""
    file = folder / FILE
    aside.write(file, json.dumps({"machine": asdict(machine), "share": asdict(share)}))
    return file


def agent(run_dir: Path, environment: Path) -> Agent:
    """That of a prepared run folder. Waits for the run's share of the machine, and keeps to it."""
    said = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
    machine = Machine(**{**said["machine"], "gpus": tuple(said["machine"]["gpus"])})
    lease = leases.take(machine, Share(**said["share"]), log.info)
    if lease.cpus:
        os.sched_setaffinity(0, lease.cpus)
        log.info("the run has the CPUs %s", ", ".join(map(str, lease.cpus)))
    else:
        log.info("cores are counted, but not kept to: more are declared than this machine has")
    if memory_gb := said["share"]["memory_gb"]:
        memory.keep_to(memory_gb, log.warning)
    return Agent(run_dir, environment=environment, variables={"CUDA_VISIBLE_DEVICES": ",".join(lease.gpus)})


if __name__ == "__main__":
    sys.exit(node.main(sys.argv[1:], agent))
