"""A pinned environment: what a lock in git says, its digest, and the folder that it is built into."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import posixpath
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ems.base import seal
from ems.base.cache import cache_dir
from ems.base.errors import ProvenanceError, UserError
from ems.base.messages import nearest
from ems.lab.repository import WorkTree
from ems.provenance import code as provenance
from ems.provenance import locks, wishes
from ems.provenance.code import Code, Source
from ems.provenance.packages import Package
from ems.stack.models import LockSpec

LOCK = "requirements.txt"
WISHES = "requirements.in"
PYTHON = "python-version"
MARKER = "ems-environment.txt"
PLAIN_PTH = frozenset(["_virtualenv.pth", "distutils-precedence.pth"])  # which bring no modules
_INDEX_OPTION = re.compile(r"(-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--trusted-host)\b")


@dataclass(frozen=True)
class Environment:
    """`lock`: requirements.txt as it is; `python`: MAJOR.MINOR[.PATCH].

    `file`: the lock of the repository that it was read from, by its path from the lab's folder; "" for a folder in
    environments/. `packages`: those of the repository itself, which that lock installs.
    """

    name: str
    python: str
    lock: str
    file: str = ""
    packages: tuple[Package, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is `built`, and of the repository's own packages, whose code is hashed apart from it."""
        if not self.packages:
            return self.built
        own = sorted(json.dumps(package.as_json(), sort_keys=True) for package in self.packages)
        return hashlib.sha256(json.dumps([self.built, own]).encode()).hexdigest()

    @cached_property
    def built(self) -> str:
        """SHA-256 of the Python version and what the lock pins; comments, index options and layout do not count."""
        pinned = sorted(line for _, line in wishes.lines(self.lock) if not _INDEX_OPTION.match(line))
        return hashlib.sha256(json.dumps([self.python, pinned]).encode()).hexdigest()

    @property
    def place(self) -> str:
        """The lock's path from the lab's folder, for messages."""
        return self.file or f"environments/{self.name}/{LOCK}"

    @property
    def python_place(self) -> str:
        """Where its Python version is written, for messages."""
        return f"{self.file}: its Python version" if self.file else f"environments/{self.name}/{PYTHON}:1"

    def fix(self, wish: str = "") -> str:
        """The command that writes the lock anew; with `wish`, which packages it is to have besides."""
        if not self.file:
            again = f"ems env lock {self.name}"
            return f"add {wish} to environments/{self.name}/{WISHES}, then: {again}" if wish else again
        if Path(self.file).name == "uv.lock":
            return f"uv add '{wish}', with --group or --extra as the stack file has it" if wish else "uv lock"
        return f"add {wish} to what {self.file} is made from, and lock it again" if wish else f"write {self.file} anew"


def label(chosen: str | LockSpec) -> str:
    """The name of an environment as people read it: `pi`, or `uv.lock (simulation)`."""
    if isinstance(chosen, str):
        return chosen
    parts = ", ".join([*sorted(chosen.groups), *(f"extra {name}" for name in sorted(chosen.extras))])
    return f"{chosen.lock} ({parts})" if parts else chosen.lock


def sources(chosen: str | LockSpec) -> list[str]:
    """Files and folders, from the lab's folder, that decide what an environment is."""
    if isinstance(chosen, str):
        return [f"environments/{chosen}"]
    beside = posixpath.dirname(chosen.lock)
    return [chosen.lock, *(posixpath.join(beside, name) for name in ("pyproject.toml", ".python-version"))]


def folder(root: Path, name: str) -> Path:
    """The folder of an environment of the lab in `root`; UserError if there is none of that name."""
    found = root / "environments" / name
    known = names(root)
    if name not in known:
        hint = f"A new one is a folder with {PYTHON} and {WISHES}."
        raise UserError(f"{found} is not an environment's folder: {nearest(name, known)}.", hint)
    return found


def names(root: Path) -> list[str]:
    """Names of all environments of the lab in `root`, sorted."""
    return sorted(other.name for other in (root / "environments").glob("*") if other.is_dir())


def from_folder(folder: Path) -> Environment:
    """The environment in a folder as it is now, named like the folder.

    ProvenanceError if lock or Python version is missing, or is not UTF-8.
    """

    def read(name: str) -> bytes | None:
        return (folder / name).read_bytes() if (folder / name).is_file() else None

    return _environment(folder.name, read(PYTHON), read(LOCK), f"in {folder}")


def of(lab: WorkTree, code: Code, chosen: str | LockSpec) -> Environment:
    """The environment that goes with resolved code of the lab; ProvenanceError as of `from_folder`, or `locks.read`."""
    source = provenance.environment_source(lab, code)
    if isinstance(chosen, str):
        return lab.once(("environment", source, chosen), lambda: _at(lab, source, chosen))
    found = lab.once(("environment", source, chosen), lambda: _locked(lab, source, chosen))
    if found.packages and code.git_dir != lab.git_dir:
        names = ", ".join(package.name for package in found.packages)
        hint = "Leave code.repo out, or lock the environment that it needs in environments/NAME/."
        raise ProvenanceError(f"{chosen.lock} installs {names} of this repository, but code.repo is another one.", hint)
    return found


def _locked(lab: WorkTree, source: Source, chosen: LockSpec) -> Environment:
    tree = locks.Tree(lab.objects(source.git_dir), source.commit, posixpath.normpath(source.prefix or "."))
    found = locks.read(tree, chosen)
    return Environment(label(chosen), found.python, found.pins, chosen.lock, found.packages)


def _at(lab: WorkTree, source: Source, name: str) -> Environment:
    def read(file: str) -> bytes | None:
        return lab.objects(source.git_dir).read_file(source.commit, f"{source.prefix}environments/{name}/{file}")

    return _environment(name, read(PYTHON), read(LOCK), f"in commit {source.commit[:12]}")


def _environment(name: str, python: bytes | None, lock: bytes | None, where: str) -> Environment:
    missing = [file for file, content in ((PYTHON, python), (LOCK, lock)) if content is None]
    if python is None or lock is None:
        raise ProvenanceError(
            f"Environment {name!r} has no {' and no '.join(missing)} {where}.",
            f"environments/{name}/ needs {PYTHON} (as 3.11) and {LOCK}, which `ems env lock {name}` writes from "
            f"{WISHES}; then commit them.",
        )
    try:
        return Environment(name, python.decode().strip(), lock.decode())
    except UnicodeDecodeError as error:
        raise ProvenanceError(f"Environment {name!r} {where} is not UTF-8 text: {error}.") from error


def built_folder(environment: Environment) -> Path:
    """Where it is, or would be, built on this machine."""
    machine = f"{sys.platform}-{platform.machine().lower()}"
    return cache_dir() / "environments" / f"{environment.built}-{machine}"


def is_built(environment: Environment) -> bool:
    """Whether a build ended, and the interpreter that it stands on is still there."""
    built = built_folder(environment)
    return (built / MARKER).is_file() and python_path(built).exists()


def is_intact(folder: Path) -> bool:
    """Whether a built environment is as it was built, and its interpreter is still there."""
    return seal.changes(folder) == [] and python_path(folder).exists()


def bin_path(folder: Path) -> Path:
    """The folder of the programs of a built environment."""
    return folder / "bin"


def python_path(folder: Path) -> Path:
    """The interpreter of a built environment."""
    return bin_path(folder) / "python"


def has_module(environment: Environment, top: str) -> bool | None:
    """Whether what is built has a module or package of this name, by its files; None where that is not known here."""
    if top in sys.stdlib_module_names:
        return True
    if not is_built(environment):
        return None
    for folder in built_folder(environment).glob("lib/python3.*/site-packages"):
        names = {entry.name for entry in os.scandir(folder)}
        if any(name == top or name.startswith(f"{top}.") for name in names):
            return True
        if any(name.endswith(".pth") and name not in PLAIN_PTH for name in names):
            return None  # they may name folders elsewhere
    return False
