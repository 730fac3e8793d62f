"""What a process of the job runs on, and what all of a run's processes do: `platform.json` in the run's folder.

Standard library alone, Python 3.9 or newer. Whatever goes wrong in here fails no run: it is logged.

    python -c "import sys; sys.path.insert(0, ZIP); from ems.node.driver.platform import probe; probe(FILE)"
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import signal
import sys
from collections import Counter
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypedDict

from ems.base import aside
from ems.node.driver.blas import Blas, blas
from ems.node.driver.machine import Machine, System, machine, system

FILE = "platform.json"
PROBE_S = 30
USERS = ("numpy", "scipy.linalg")  # of BLAS: each may bring a library of its own

log = logging.getLogger("ems.driver")


class Platform(TypedDict):
    """What a process runs on."""

    machine: Annotated[Machine, "The hardware."]
    system: Annotated[System, "The operating system."]
    python: Annotated[str, "Python of the job, as `CPython 3.11.7`; empty if it is not known."]
    blas: Annotated[list[Blas], "The libraries for linear algebra that the job has loaded."]


def here() -> str:
    """This process's platform as JSON; "" if it cannot be found out."""
    return _here(len(sys.modules))


@lru_cache(maxsize=1)
def _here(modules: int) -> str:  # noqa: ARG001  (libraries come with imports: as long as there is none, all is as it was)
    try:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        found: Platform = {"machine": machine(), "system": system(), "python": python, "blas": blas()}
        return json.dumps(found)
    except Exception:
        log.warning("The platform is not known.", exc_info=True)
        return ""


class Platforms:
    """What the workers run on: a file with each distinct platform and its `count`, the commonest first."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, str] = {}  # by worker; those that were replaced are among them

    def meet(self, worker: str, platform: str) -> None:
        """`platform`: what `here` said in the worker, maybe once more."""
        if platform and self._known.get(worker) != platform:
            self._known[worker] = sys.intern(platform)
            write(self._file, Counter(self._known.values()))


def write(file: Path, counts: Counter[str]) -> None:
    """Each distinct platform with its count, the commonest first; a file that cannot be written is logged."""
    groups: list[dict[str, Any]] = [{"count": count, **json.loads(found)} for found, count in counts.most_common()]
    try:
        aside.write(file, json.dumps(groups), lasting=False)
    except OSError as error:
        log.warning("%s: the platform is not written.", error)


def probe(file: str) -> None:
    """Say what a program of this environment runs on that would use numpy or scipy, where these are there."""
    signal.alarm(PROBE_S)  # whatever hangs ends then, also without an agent
    os.nice(10)
    for name in USERS:
        if find_spec(name.partition(".")[0]):
            _load(name)
    write(Path(file), Counter({here(): 0}))


def _load(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:
        log.warning("%s cannot be loaded, so its BLAS is not known.", name, exc_info=True)
