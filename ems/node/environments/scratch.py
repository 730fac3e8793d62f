"""Environments unpacked on a node's own disk: once, whoever needs it first; used by all jobs of the user there.

What was not used for a month is removed. Locks lie on the same disk, where they mean something.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile

from ems.base import aside, filesystems, seal
from ems.base.errors import EmsError, ProvenanceError
from ems.base.locks import exclusive
from ems.base.messages import Say
from ems.node.environments import archive, building, claims
from ems.node.environments.python import Python, find, runs
from ems.node.environments.recipe import Order, Recipe

KEPT_S = 30 * 24 * 3600.0
MOST_TRIES = 3
CODE = "code-"


def folder(setting: str) -> Path:
    """Where environments are unpacked on this node: in the folder of the setting, else in the first that the node has.

    Not in one that is of this job alone: another job of the run could not have the same.
    """
    job = os.environ.get("SLURM_JOB_ID") or " "
    for text in [setting] if setting else [os.environ.get("L_SCRATCH", ""), os.environ.get("TMPDIR", ""), "/tmp"]:
        parent = Path(os.path.expandvars(text)).expanduser()
        if text and (setting or (parent.is_dir() and job not in str(parent) and not filesystems.network(parent))):
            break
    return parent / f"ems-{os.getuid()}"


def own(scratch: Path) -> None:
    """Make the folder, for this user alone; EmsError if that cannot be, or it is another user's."""
    try:
        scratch.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(mode=0o700, exist_ok=True)
        if scratch.is_symlink() or scratch.stat().st_uid != os.getuid():
            raise PermissionError(f"{scratch} is another user's")
        scratch.chmod(0o700)
    except OSError as error:
        where = f"{scratch.parent} on {platform.node()}"
        hint = "Free some space there, or name another folder: `work_dir` of a server, `local_scratch` of Slurm."
        raise EmsError(f"Environments cannot be unpacked in {where}: {error}.", hint) from error


def unpacked(recipe: Recipe, order: Order, say: Say, where: Path | None = None) -> Path:
    """The folder of the environment on this node: as it was built, read-only, and it starts.

    `where`: that of the run's head, if this is another job of the run: paths are the same on all its nodes.
    ProvenanceError: there is no Python for it, or it cannot be built. OSError: no space, no right.
    """

    def tell(step: str) -> None:
        say(f"environment {recipe.name}: {step}")

    python = find(recipe, order)
    key = key_of(recipe, python)
    where = where or folder(order.scratch) / f"{key}-{hashlib.sha256(str(python.path).encode()).hexdigest()[:8]}"
    own(where.parent)
    if not where.name.startswith(key):
        hint = "Name a module of Python in `modules` of the place, so that all nodes have the same."
        raise ProvenanceError(f"{platform.node()} has Python {python.path}, another one than the run's head.", hint)
    with exclusive(_lock(where), lambda: tell("another job unpacks it on this node")):
        os.utime(_lock(where))
        if seal.changes(where) != [] or not runs(where / "bin/python"):
            with aside.making(where) as part:
                _provide(recipe, python, Path(order.archives, key), part, order, tell)
                _stand_on(part, python.path)
                seal.seal(part)
            tell(f"unpacked on {platform.node()}")
    _forget_unused(where.parent)
    return where


def key_of(recipe: Recipe, python: Python) -> str:
    """The name of the archive."""
    return f"{recipe.digest}-{python.tag}-{sys.platform}-{platform.machine().lower()}"


def _provide(recipe: Recipe, python: Python, archived: Path, part: Path, order: Order, tell: Say) -> None:
    """Lay out the archive as `part`; one that is missing or damaged is built, by this job or by another."""
    for _ in range(MOST_TRIES):
        try:
            archive.unpack(archived, part)
            return
        except archive.Damaged as damaged:
            aside.remove(part)
            if archived.exists():
                tell(damaged.message)
        archive.make_folder(archived.parent)
        with claims.turn(archived, tell) as mine:
            if mine and not _is_whole(archived):
                building.build(recipe, python, archived, part.parent, order, tell)
    raise ProvenanceError(f"{archived} is damaged again and again.", "Is that disk sound? Set `environments_dir`.")


def _is_whole(archived: Path) -> bool:
    try:
        archive.check(archived)
    except archive.Damaged:
        return False
    return True


def _stand_on(environment: Path, python: Path) -> None:
    """Where it was built, Python may have lain elsewhere."""
    link, about = environment / "bin/python", environment / "pyvenv.cfg"
    link.unlink()
    link.symlink_to(python)
    lines = about.read_text(encoding="utf-8").splitlines()
    about.write_text(
        "".join(f"home = {python.parent}\n" if line.startswith("home =") else f"{line}\n" for line in lines),
        encoding="utf-8",
    )


def code(zipped: Path, scratch: Path, python: Path) -> Path:
    """EMS's own code, unpacked on this node and compiled for this Python. OSError, as of `unpacked`."""
    digest = hashlib.sha256(zipped.read_bytes()).hexdigest()
    where = scratch / f"{CODE}{digest[:32]}"
    own(scratch)
    with exclusive(_lock(where)):
        os.utime(_lock(where))
        if seal.changes(where) != []:
            with aside.making(where) as part:
                with ZipFile(zipped) as archive_of_code:
                    archive_of_code.extractall(part)
                subprocess.run([python, "-I", "-m", "compileall", "-q", part], check=False, stdin=subprocess.DEVNULL)
                seal.seal(part)
    return where


def _lock(where: Path) -> Path:
    return where.with_name(f"{where.name}.lock")


def _forget_unused(scratch: Path) -> None:
    """What is on the way to be used has a fresh lock."""
    for lock in scratch.glob("*.lock"):
        with suppress(OSError):
            if time.time() - lock.stat().st_mtime < KEPT_S:
                continue
            with lock.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.utime(lock)
                aside.remove(lock.with_suffix(""))
    for left in scratch.glob("build-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > KEPT_S:
                shutil.rmtree(left)
