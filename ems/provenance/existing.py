"""What a repository has anyway that says which packages its programs need, as it is in the working tree."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ems.base import aside
from ems.base.errors import ProvenanceError, UserError
from ems.provenance import pins, wishes
from ems.provenance.environment import PYTHON, WISHES, Environment
from ems.provenance.locks import PYTHON_FILE, PYTHON_LINE

CONDA = ("environment.yml", "environment.yaml")
REQUIREMENTS = "requirements.txt"
LOCAL = re.compile(r"(-e|--editable)\b|\.{1,2}(/|$)|file:")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OF_CONDA = {"python", "pip"}


@dataclass(frozen=True)
class Existing:
    """Paths are those from the lab's folder.

    `lock`: a lock that stack files can name, with what its project has besides; `python`: what they have to say with
    it, "" where a file says it; `wishes`: without a lock, what may be locked; `unlocked`: a pyproject.toml that
    has no lock.
    """

    lock: str = ""
    python: str = ""
    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    wishes: str = ""
    unlocked: str = ""


class Wishes(NamedTuple):
    """The content of requirements.in, the version of Python, and what was left out of the former."""

    text: str
    python: str
    left_out: tuple[str, ...] = ()


def find(root: Path, top: Path | None) -> Existing:
    """What the lab in `root` has: the nearest folder counts, up to the top of its repository."""
    folders = [root, *root.parents]
    folders = folders[: folders.index(top) + 1] if top in folders else [root]
    for folder in folders:
        if lock := next(_locks(folder), None):
            return _locked(root, folders, lock)
    for folder in folders:
        if file := next((folder / name for name in (REQUIREMENTS, *CONDA) if (folder / name).is_file()), None):
            return Existing(wishes=_seen(root, file))
    projects = [folder / "pyproject.toml" for folder in folders if _has_dependencies(folder / "pyproject.toml")]
    return Existing(unlocked=_seen(root, projects[0]) if projects else "")


def _locks(folder: Path) -> Iterator[Path]:
    if (folder / "uv.lock").is_file():
        yield folder / "uv.lock"
    yield from sorted(folder.glob("pylock.toml")) or sorted(folder.glob("pylock.*.toml"))
    if (folder / REQUIREMENTS).is_file() and _is_pinned(folder / REQUIREMENTS):
        yield folder / REQUIREMENTS


def _is_pinned(file: Path) -> bool:
    """Whether it is a lock with hashes, of one package at least."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return bool(pins.pinned(text)) and not pins.check(Environment(file.name, HERE, text, file.name)).errors


def _locked(root: Path, folders: list[Path], lock: Path) -> Existing:
    says_python = any((folder / PYTHON_FILE).is_file() for folder in folders[: folders.index(lock.parent) + 1])
    said = _toml(lock.with_name("pyproject.toml")) if lock.name == "uv.lock" else _toml(lock)
    project = said.get("project", {})
    groups = said.get("dependency-groups", {})
    extras = project.get("optional-dependencies", said.get("extras", ()))
    allowed = str(project.get("requires-python", said.get("requires-python", "")))
    python = "" if says_python or not _allows(allowed) else HERE
    return Existing(_seen(root, lock), python, tuple(groups), tuple(extras))


def _allows(requires: str) -> bool:
    """Whether this Python will do: where it will not, the oldest one that will is taken."""
    try:
        return any(f"{HERE}.{patch}" in SpecifierSet(requires) for patch in range(60))
    except InvalidSpecifier:
        return False


def _toml(file: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):  # what is wrong with it, `ems check` tells
        return {}


def _has_dependencies(pyproject: Path) -> bool:
    said = _toml(pyproject)
    return bool(said.get("project", {}).get("dependencies") or said.get("dependency-groups"))


def _seen(root: Path, file: Path) -> str:
    return Path(os.path.relpath(file, root)).as_posix()


def wishes_of(file: Path, folder: Path) -> Wishes:
    """What an environment in `folder` wishes, by a requirements.txt or the pip part of an environment.yml.

    ProvenanceError: the file cannot be read, or names what conda alone has.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ProvenanceError(f"{file} cannot be read: {error}") from error
    if file.suffix in {".yml", ".yaml"}:
        return _of_conda(file, text)
    python = _python_beside(file) or HERE
    lines = [line for _, line in wishes.lines(text)]
    local = tuple(line for line in lines if LOCAL.match(line))
    if not local:
        return Wishes(f"-r {Path(os.path.relpath(file, folder)).as_posix()}\n", python)
    return Wishes(_listed(file, [line for line in lines if line not in local]), python, local)


def adopt(file: Path, folder: Path) -> tuple[str, ...]:
    """Write requirements.in and python-version of the environment in `folder` by `file`; returns what was left out.

    UserError if they are there and say something else; ProvenanceError as of `wishes_of`.
    """
    wished = wishes_of(file, folder)
    if (folder / WISHES).exists() and (folder / WISHES).read_text(encoding="utf-8") != wished.text:
        hint = f"Take another name: ems env lock NAME --from {file.name}"
        raise UserError(f"{folder / WISHES} is there, and says something else than {file.name}.", hint)
    folder.mkdir(parents=True, exist_ok=True)
    aside.write(folder / WISHES, wished.text)
    if not (folder / PYTHON).exists():
        aside.write(folder / PYTHON, f"{wished.python}\n")
    return wished.left_out


def _listed(file: Path, lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in (f"# Taken from {file.name}.", *lines))


def _python_beside(file: Path) -> str:
    beside = file.with_name(PYTHON_FILE)
    lines = beside.read_text(encoding="utf-8").split("\n") if beside.is_file() else [""]
    found = PYTHON_LINE.fullmatch(lines[0].strip())
    return found[1] if found else ""


def _of_conda(file: Path, text: str) -> Wishes:
    try:
        said = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProvenanceError(f"{file} is not YAML: {error}", "Correct it.") from error
    listed = said.get("dependencies") if isinstance(said, dict) else None
    if not isinstance(listed, list):
        raise ProvenanceError(f"{file} has no list of `dependencies`.", "Name another file.")
    pip = [str(line) for each in listed if isinstance(each, dict) for line in each.get("pip") or ()]
    conda = {_conda_name(each): each for each in listed if isinstance(each, str)}
    alone = sorted(set(conda) - OF_CONDA)
    if alone:
        raise ProvenanceError(
            f"{file.name}: {', '.join(alone)} come from conda alone, and EMS installs from a Python package index.",
            "Move those that the index has too, which most are under the same name, below `- pip:` in that file. What "
            "is not Python, as R or a compiler, install on the machine, and remove it from the file.",
        )
    local = tuple(line for line in pip if LOCAL.match(line))
    return Wishes(_listed(file, [line for line in pip if line not in local]), _conda_python(conda), local)


def _conda_name(line: str) -> str:
    return re.split(r"[\s=<>!~\[]", line.rpartition("::")[2].strip(), maxsplit=1)[0].lower()


def _conda_python(conda: Mapping[str, str]) -> str:
    found = re.search(r"=\s*(\d+\.\d+(\.\d+)?)", conda.get("python", ""))
    return found[1] if found else HERE
