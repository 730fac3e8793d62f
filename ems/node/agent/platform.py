"""What a run runs on, as its row keeps it. Whatever goes wrong in here fails no run: it is logged."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypedDict

from ems.base.version import __version__
from ems.node.driver import measured
from ems.node.driver.blas import Blas
from ems.node.driver.machine import Machine, System, machine, system
from ems.node.driver.measured import Measured
from ems.node.driver.platform import FILE, Platform

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from ems.node.driver.platform import probe; probe(sys.argv[2])"

log = logging.getLogger(__name__)


class WorkerCount(TypedDict):
    """How many workers are alike."""

    count: Annotated[int, "How many workers of a sweep have this platform; those that were replaced count, too."]


class WorkerPlatform(WorkerCount, total=False):
    """What some workers run on. A key is left out where its value is that of the run itself."""

    machine: Annotated[Machine, "The hardware."]
    system: Annotated[System, "The operating system."]
    python: Annotated[str, "Python of these workers."]
    blas: Annotated[list[Blas], "The libraries for linear algebra that these workers have loaded."]


class RunPlatform(TypedDict):
    """What a run runs on, and the code that it runs."""

    ems: Annotated[str, "Version of EMS."]
    commit: Annotated[
        str,
        "Full hash of the commit that this run took its code from: another one than the experiment's if that is gone "
        "and this one has the same content; empty if it is not known.",
    ]
    modules: Annotated[list[str], "Modules of the machine that were loaded, with their versions; of a Slurm machine."]
    machine: Annotated[Machine, "The hardware on which the agent runs, and a command with it."]
    system: Annotated[System, "Its operating system."]
    python: Annotated[str, "Python of the job, as `CPython 3.11.7`; empty if it is not known."]
    blas: Annotated[
        list[Blas],
        "The libraries for linear algebra that most workers of a sweep have loaded. Of a command: those that numpy and "
        "scipy of its environment load.",
    ]
    workers: Annotated[list[WorkerPlatform], "The distinct platforms of a sweep's workers; empty for a command."]
    measured: Annotated[
        Measured | None, "What the points of a sweep cost; null until they are computed, and for a command."
    ]


def of_run(run_dir: Path, commit: str, modules: Sequence[str] = ()) -> str:
    """The RunPlatform as JSON, as far as it is known by now."""
    groups: list[dict[str, Any]] = _read(run_dir / FILE) or []
    job: dict[str, Any] = groups[0] if groups else {"python": "", "blas": []}
    own: Platform = {"machine": machine(), "system": system(), "python": job["python"], "blas": job["blas"]}
    workers = [_less(group, own) for group in groups if group["count"]]
    cost = _read(run_dir / measured.FILE)
    about = {"ems": __version__, "commit": commit, "modules": list(modules)}
    return json.dumps({**about, **own, "workers": workers, "measured": cost})


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _less(group: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in own or value != own[key]}


def forget(run_dir: Path) -> None:
    """What an earlier job of this folder ran on."""
    for name in (FILE, measured.FILE):
        with suppress(OSError):  # then it is written over
            (run_dir / name).unlink()


class Probe:
    """A short process that finds out, beside a command that runs, which Python and BLAS its environment has."""

    def __init__(self, environment: Path, ems: Path, variables: Mapping[str, str], run_dir: Path) -> None:
        """`ems`: the zip of EMS's own code. `variables`: those of the job."""
        own = {name: value for name, value in variables.items() if not name.startswith("EMS_")}
        words: list[str | Path] = [environment / "bin/python", "-I", "-c", BOOT, ems, run_dir / FILE]
        nothing = subprocess.DEVNULL
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(words, cwd=environment, env=own, stdin=nothing, stdout=nothing)
        except (OSError, ValueError) as error:
            log.warning("The job's Python and BLAS are not known: %s", error)

    def end(self, within_s: float) -> None:
        """Wait so long for it at most."""
        if self._process is None:
            return
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            log.warning("The job's Python and BLAS are not known yet.")
            self._process.kill()
            self._process.wait()
