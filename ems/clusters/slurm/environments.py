"""What the jobs of a run on a Slurm machine are told of their environments, and EMS's own code for them."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from ems.base import aside
from ems.base.errors import UserError
from ems.base.locks import share
from ems.base.private import make_folder
from ems.clusters.slurm.settings import Wanted
from ems.lab import Lab
from ems.node import environments
from ems.node.environments.archive import FOLDER_MODE
from ems.node.environments.ready import BOOT, CODE, FAILED, ORDER
from ems.node.environments.recipe import Order, Recipe

if TYPE_CHECKING:
    from ems.provenance.environment import Environment

PYTHON = "3.11+"  # for agents
LOCK = Path(environments.__file__).with_name("requirements.txt")
HANDED_ON = ("UV_", "SSL_CERT_", "SLURM_CONF")  # variables that say how packages and Slurm are reached
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
EMS = Path(__file__).parents[2]


def describe(lab: Lab, environment: Environment, wanted: Wanted, run_dir: Path) -> None:
    """Write into the run's folder what its jobs need for their environments. UserError without a folder for them.

    `environment`: the experiment's.
    """
    import uv  # which agents do without

    make_folder(run_dir)
    share(run_dir)
    recipe = Recipe(environment.name, environment.built, environment.python, environment.lock)
    archives = folder(lab, wanted)
    try:
        _make_shared(archives)
    except OSError as error:
        raise UserError(
            f"The folder for environments {archives} cannot be made: {error.strerror}.", "Set environments_dir."
        ) from error
    Order(
        agents=own(),
        experiment=recipe,
        archives=str(archives),
        scratch=wanted.local_scratch,
        code=str(run_dir / CODE),
        uv=uv.find_uv_bin(),
        variables={name: text for name, text in os.environ.items() if _is_handed_on(name)},
        modules=wanted.modules,
    ).write(run_dir / ORDER)
    _zip_code(run_dir / CODE)


def folder(lab: Lab, wanted: Wanted) -> Path:
    """That of the archives: by its setting, else in the place's work folder, else in the lab's own."""
    if wanted.environments_dir:
        return Path(os.path.expandvars(wanted.environments_dir)).expanduser().absolute()
    work_dir = os.path.expandvars(wanted.work_dir)
    return (Path(work_dir).expanduser() if work_dir else lab.work_dir).absolute() / "environments"


def own() -> Recipe:
    """EMS's own environment for agents, whose lock ships with EMS: each version finds the one that it needs."""
    lock = LOCK.read_text(encoding="utf-8")
    return Recipe("ems", hashlib.sha256(f"{PYTHON}\n{lock}".encode()).hexdigest(), PYTHON, lock)


def boot(run_dir: Path, *words: str) -> str:
    """In a script, what has the environments on the node: `words` as of `ems.node.environments.ready`."""
    return f'"$python" -I -c {shlex.quote(BOOT)} {shlex.join([str(run_dir / CODE), str(run_dir), *words])}'


def is_described(run_dir: Path) -> bool:
    """Whether jobs of a run know what they need."""
    return (run_dir / ORDER).exists()


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


def _is_handed_on(name: str) -> bool:
    return name.startswith(HANDED_ON) or name.lower() in PROXIES


def _make_shared(archives: Path) -> None:
    """For the group of the folder in which it is made; one that is there keeps its rights."""
    if not archives.is_dir():
        archives.parent.mkdir(parents=True, exist_ok=True)
        archives.mkdir(exist_ok=True)
        archives.chmod(FOLDER_MODE)


def _zip_code(file: Path) -> None:
    with aside.writing(file) as part, ZipFile(part, "w", ZIP_STORED) as archive:
        for path in _files():
            archive.writestr(ZipInfo(path.relative_to(EMS.parent).as_posix()), path.read_bytes())


def _files() -> Sequence[Path]:
    """Whatever an agent imports when."""
    return sorted(path for path in EMS.rglob("*.py") if "templates" not in path.parts)
