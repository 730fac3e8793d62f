"""Locks that the lab's repository has anyway: uv.lock, pylock.toml (PEP 751), requirements.txt with hashes.

They are read at a commit, and become the lines of a `requirements.txt`: so they are hashed, shipped and built as the
locks in environments/ are. uv reads its own lock, without the network.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ems.base.errors import ProvenanceError
from ems.base.process import CommandFailed, uv
from ems.lab.objects import Objects
from ems.provenance import packages, pylock
from ems.provenance.packages import Package
from ems.stack.models import LockSpec

PYTHON_FILE = ".python-version"
PYTHON_LINE = re.compile(r"(?:cpython[-@]?|python)?(\d+\.\d+(?:\.\d+)?)")
OLDEST, NEWEST = 9, 40  # minors of Python 3 that are asked
LOCAL = re.compile(r"(?:-e |--editable )?(\.{1,2}(?:/.*)?)(?: ;.*)?")
READ_BY_UV = re.compile(r"(^|/)(pyproject\.toml|uv\.lock|uv\.toml)$")


class Locked(NamedTuple):
    """What a lock says. `pins`: lines of requirements.txt; `packages`: those of the repository itself."""

    python: str
    pins: str
    packages: tuple[Package, ...] = ()


class Tree:
    """The files of one commit, by paths from the repository's top. `lab`: the lab's folder there, "." or "a/b"."""

    def __init__(self, objects: Objects, commit: str, lab: str) -> None:
        self._objects, self.commit, self.lab = objects, commit, lab

    def at(self, path: str) -> str:
        """The path from the top of what has `path` from the lab's folder; it begins with ".." if it is outside."""
        return posixpath.normpath(posixpath.join(self.lab, path))

    def seen(self, path: str) -> str:
        """The path from the lab's folder of what has `path` from the top."""
        return posixpath.relpath(path, self.lab)

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if the commit has none there."""
        return self._objects.read_file(self.commit, path)

    def text(self, path: str) -> str | None:
        """The same, as text; ProvenanceError if it is not UTF-8."""
        content = self.read(path)
        try:
            return None if content is None else content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ProvenanceError(f"{path} in commit {self.commit[:12]} is not UTF-8 text: {error}.") from error

    def below(self, folder: str) -> list[str]:
        """The files below a folder, by paths from the top."""
        listing = self._objects.listing(self.commit)
        return [listing.files[place].path for place in listing.places("" if folder == "." else folder)]

    def up_to(self, folder: str) -> list[str]:
        """The lab's folder, and those above it up to `folder`; `folder` alone if the lab is not below it."""
        found = [self.lab]
        while found[-1] not in {folder, "."}:
            found.append(posixpath.dirname(found[-1]) or ".")
        return found if found[-1] == folder else [folder]


def read(tree: Tree, spec: LockSpec) -> Locked:
    """What the lock that a stack file names says at a commit; ProvenanceError if it is not there, or not usable."""
    path = tree.at(spec.lock)
    text = None if path.startswith("../") else tree.text(path)
    if text is None:
        hint = "Commit it, or correct environment.lock in the stack file."
        raise ProvenanceError(f"The lock {spec.lock} is not in commit {tree.commit[:12]} of the repository.", hint)
    if path.endswith("uv.lock"):
        return _of_uv(tree, spec, text)
    if path.endswith(".toml"):
        found = pylock.read(spec.lock, text, spec.groups, spec.extras)
        return Locked(_python(tree, spec, found.requires_python), found.pins)
    if spec.groups or spec.extras:
        hint = "Leave groups and extras out of the stack file, or lock by uv: uv lock"
        raise ProvenanceError(f"{spec.lock} has neither groups nor extras.", hint)
    return Locked(_python(tree, spec, ""), text)


def _of_uv(tree: Tree, spec: LockSpec, text: str) -> Locked:
    folder = posixpath.dirname(tree.at(spec.lock)) or "."
    requires = re.search(r'^requires-python = "([^"]+)"', text, re.MULTILINE)
    lines = _exported(tree, spec, folder)
    local = [found[1] for line in lines if (found := LOCAL.fullmatch(line))]
    own = tuple(_package(tree, posixpath.normpath(posixpath.join(folder, path))) for path in sorted(local))
    pins = "\n".join(line for line in lines if not LOCAL.fullmatch(line))
    return Locked(_python(tree, spec, requires[1] if requires else ""), pins, own)


def _exported(tree: Tree, spec: LockSpec, folder: str) -> list[str]:
    """The lines that `uv export` writes for the lab's own member of a workspace, else for the lock's project."""
    choice = [f"--{word}={name}" for word, names in (("group", spec.groups), ("extra", spec.extras)) for name in names]
    plain = ["--quiet", "--frozen", "--offline", "--no-header", "--no-annotate", "--no-default-groups"]
    with tempfile.TemporaryDirectory() as scratch:
        for path in filter(READ_BY_UV.search, tree.below(folder)):
            file = Path(scratch, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(tree.read(path) or b"")
        project = next((at for at in tree.up_to(folder) if tree.read(posixpath.join(at, "pyproject.toml"))), folder)
        try:
            return uv("export", *plain, *choice, cwd=Path(scratch, project)).splitlines()
        except CommandFailed as error:
            said = error.stderr.strip().removeprefix("error: ").replace(f"{scratch}/", "")
            hint = "Correct it there, or in the stack file; `uv lock` writes the lock anew. Then commit it."
            raise ProvenanceError(f"{spec.lock} in commit {tree.commit[:12]}: uv: {said}", hint) from error


def _package(tree: Tree, folder: str) -> Package:
    pyproject, setup = (tree.read(posixpath.normpath(f"{folder}/{name}")) for name in ("pyproject.toml", "setup.py"))
    files = [tree.seen(path) for path in tree.below(folder)]
    return packages.read(tree.seen(folder), pyproject, setup, files)


def _python(tree: Tree, spec: LockSpec, requires: str) -> str:
    """As the stack file says, else .python-version beside the lock, else the oldest that the lock allows."""
    folder = posixpath.dirname(tree.at(spec.lock)) or "."
    for beside in tree.up_to(folder) if not spec.python else ():
        path = posixpath.normpath(posixpath.join(beside, PYTHON_FILE))
        if (text := tree.text(path)) is not None:
            return _python_line(path, text)
    found = spec.python or oldest(requires)
    if not found:
        hint = f'Write it into the stack file, as environment: {{lock: {spec.lock}, python: "3.11"}}'
        raise ProvenanceError(f"Nothing says which Python {spec.lock} is for: there is no {PYTHON_FILE}.", hint)
    return found


def _python_line(where: str, text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = PYTHON_LINE.fullmatch(lines[0]) if lines else None
    if not found:
        hint = f"Correct it: echo 3.11 > {where}; or write the version as environment.python into the stack file."
        raise ProvenanceError(
            f"{where} says {lines[0] if lines else 'nothing'!r}: allowed is MAJOR.MINOR[.PATCH].", hint
        )
    return found[1]


def oldest(requires: str) -> str:
    """The oldest minor version of Python that a `requires-python` allows; "" if it says nothing, or allows none."""
    try:
        allowed = SpecifierSet(requires)
    except InvalidSpecifier:
        return ""
    minors = range(OLDEST, NEWEST) if requires.strip() else ()
    patches = range(0, 60)
    return next((f"3.{minor}" for minor in minors if any(f"3.{minor}.{patch}" in allowed for patch in patches)), "")
