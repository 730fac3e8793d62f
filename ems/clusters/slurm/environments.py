"""What the jobs of a run on a Slurm machine are told of their environments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ems.base import private
from ems.base.errors import UserError
from ems.base.locks import share
from ems.clusters import shipping
from ems.clusters.slurm.wanted import Wanted
from ems.node.agent.config import AgentConfig
from ems.node.environments import archive
from ems.node.environments.ready import CODE, FAILED, ORDER

if TYPE_CHECKING:
    from ems.lab import Lab
    from ems.provenance.environment import Environment


def describe(lab: Lab, environment: Environment, wanted: Wanted, run_dir: Path) -> None:
    """Write into the run's folder what its jobs need for their environments. UserError without a folder for them.

    `environment`: the experiment's.
    """
    private.make_folder(run_dir)
    share(run_dir)
    archives = folder(lab, wanted)
    make_folder(archives)
    shipping.order(
        environment,
        archives=str(archives),
        scratch=wanted.local_scratch,
        code=str(run_dir / CODE),
        modules=wanted.modules,
    ).write(run_dir / ORDER)
    shipping.zip_code(run_dir / CODE)


def make_folder(archives: Path) -> None:
    """Have the folder for archives. UserError without one."""
    try:
        archive.make_folder(archives)
    except OSError as error:
        raise UserError(
            f"The folder for environments {archives} cannot be made: {error.strerror}.", "Set environments_dir."
        ) from error


def folder(lab: Lab, wanted: Wanted) -> Path:
    """That of the archives: by its setting, else in the place's work folder, else in the lab's own."""
    if wanted.environments_dir:
        return Path(os.path.expandvars(wanted.environments_dir)).expanduser().absolute()
    work_dir = os.path.expandvars(wanted.work_dir)
    return (Path(work_dir).expanduser() if work_dir else lab.work_dir).absolute() / "environments"


def is_described(run_dir: Path) -> bool:
    """Whether jobs of a run know what they need."""
    return AgentConfig.exists(run_dir) and (run_dir / ORDER).exists() and (run_dir / CODE).exists()


def forget(run_dir: Path) -> None:
    """The run is over; variables of who submitted it may hold a password of a package index."""
    (run_dir / ORDER).unlink(missing_ok=True)


def failure(run_dir: Path) -> str:
    """Why the environments of a run cannot be built; "" if nothing is known to be wrong."""
    try:
        return (run_dir / FAILED).read_text(encoding="utf-8")
    except OSError:
        return ""


def forget_failure(run_dir: Path) -> None:
    """It may be otherwise now."""
    (run_dir / FAILED).unlink(missing_ok=True)
