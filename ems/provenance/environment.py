"""A pinned environment: what a lock in git says, its digest, and the folder that it is built into."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ems.base.cache import cache_dir
from ems.base.errors import ProvenanceError, UserError
from ems.base.messages import nearest
from ems.lab.repository import WorkTree
from ems.provenance import code as provenance
from ems.provenance import seal, wishes
from ems.provenance.code import Code, Source

LOCK = "requirements.txt"
WISHES = "requirements.in"
PYTHON = "python-version"
MARKER = "ems-environment.txt"
_INDEX_OPTION = re.compile(r"(-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--trusted-host)\b")


@dataclass(frozen=True)
class Environment:
    """`lock`: requirements.txt as it is; `python`: MAJOR.MINOR[.PATCH]."""

    name: str
    python: str
    lock: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the Python version and what the lock pins; comments, index options and layout do not count."""
        pinned = sorted(line for _, line in wishes.lines(self.lock) if not _INDEX_OPTION.match(line))
        return hashlib.sha256(json.dumps([self.python, pinned]).encode()).hexdigest()


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


def of(lab: WorkTree, code: Code, name: str) -> Environment:
    """The environment that goes with resolved code of the lab; ProvenanceError as of `from_folder`."""
    source = provenance.environment_source(lab, code)
    return lab.once(("environment", source, name), lambda: _at(lab, source, name))


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
    return cache_dir() / "environments" / f"{environment.digest}-{machine}"


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
