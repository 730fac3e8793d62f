"""What goes to a machine that has nothing of EMS: its code, the recipes of environments, the words that start it."""

from __future__ import annotations

import hashlib
import io
import os
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from ems.base import aside
from ems.node import environments
from ems.node.environments.ready import BOOT, CODE
from ems.node.environments.recipe import Order, Recipe

if TYPE_CHECKING:
    from ems.provenance.environment import Environment

PYTHON = "3.11+"  # for agents
LOCK = Path(environments.__file__).with_name("requirements.txt")
HANDED_ON = ("UV_", "SSL_CERT_", "SLURM_CONF")  # variables that say how packages and Slurm are reached
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
EMS = Path(__file__).parents[1]


def order(
    environment: Environment | None, *, archives: str, scratch: str, code: str, modules: tuple[str, ...] = ()
) -> Order:
    """What an agent's machine is told of its environments. The rest as of Order.

    `environment`: the experiment's; None: there is none, but EMS's own.
    """
    import uv  # which agents do without

    return Order(
        agents=own(),
        experiment=Recipe(environment.name, environment.built, environment.python, environment.lock)
        if environment
        else own(),
        archives=archives,
        scratch=scratch,
        code=code,
        uv=uv.find_uv_bin(),
        variables={name: text for name, text in os.environ.items() if _is_handed_on(name)},
        modules=modules,
    )


def own() -> Recipe:
    """EMS's own environment for agents, whose lock ships with EMS: each version finds the one that it needs."""
    lock = LOCK.read_text(encoding="utf-8")
    return Recipe("ems", hashlib.sha256(f"{PYTHON}\n{lock}".encode()).hexdigest(), PYTHON, lock)


def boot(run_dir: Path, *words: str) -> str:
    """In a script, what has the environments on the node: `words` as of `ems.node.environments.ready`."""
    return f'"$python" -I -c {shlex.quote(BOOT)} {shlex.join([str(run_dir / CODE), str(run_dir), *words])}'


def zip_code(file: Path) -> None:
    """Write EMS's own code, the same bytes each time."""
    aside.write(file, zipped_code())


@cache
def zipped_code() -> bytes:
    """EMS's own code, as this process found it."""
    written = io.BytesIO()
    with ZipFile(written, "w", ZIP_STORED) as archive:
        for path in _files():
            archive.writestr(ZipInfo(path.relative_to(EMS.parent).as_posix()), path.read_bytes())
    return written.getvalue()


def _is_handed_on(name: str) -> bool:
    return name.startswith(HANDED_ON) or name.lower() in PROXIES


def _files() -> Sequence[Path]:
    """Whatever an agent imports when."""
    return sorted(path for path in EMS.rglob("*.py") if "templates" not in path.parts)
