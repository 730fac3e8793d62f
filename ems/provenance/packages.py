"""Packages of the lab's repository itself, which a lock installs from its own folder (`-e .`).

They are not built: the job finds the shipped files where they lie, as an editable installation would, with their
metadata and programs. So what runs is the commit, and neither a build backend nor the network has a say in it.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ems.base.errors import ProvenanceError

COMPILING = re.compile(
    r"maturin|scikit_build_core\..*|mesonpy|py_build_cmake\..*|setuptools_rust|skbuild\..*|sipbuild.*"
)
EXTENSIONS = re.compile(r"\bext_modules\b|\bcythonize\b|\brust_extensions\b")
UNKNOWN = "0+unknown"  # of a version that the build backend would compute


@dataclass(frozen=True)
class Package:
    """One of them. `roots`: folders, from the lab's, that hold its modules; `entry_points`: (group, name, object)."""

    name: str
    version: str
    roots: tuple[str, ...]
    entry_points: tuple[tuple[str, str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """What is hashed, and what the job's machine gets."""
        points = [list(point) for point in self.entry_points]
        return {"name": self.name, "version": self.version, "roots": list(self.roots), "entry_points": points}


def read(folder: str, pyproject: bytes | None, setup: bytes | None, files: Collection[str]) -> Package:
    """The package in `folder`, by its pyproject.toml (and setup.py). `files`: those of the lab; paths from its folder.

    ProvenanceError: it has compiled modules, or lies outside the lab, or says too little of itself.
    """
    where = posixpath.normpath(posixpath.join(folder, "pyproject.toml"))
    if where.startswith("../"):
        hint = "Make the lab at the top of the repository, or in a folder that holds the package: ems init DIR"
        raise ProvenanceError(f"The lock needs the package in {folder}, which is outside the lab's folder.", hint)
    said = _parsed(where, pyproject)
    _refuse_compiled(where, said, setup)
    project = said.get("project") or said.get("tool", {}).get("poetry") or {}
    if not project.get("name"):
        raise ProvenanceError(f"{where} has no [project] with a name, and the lock needs its package.", "Write one.")
    roots = tuple(_roots(folder, said, files))
    return Package(project["name"], str(project.get("version", UNKNOWN)), roots, tuple(sorted(_entry_points(project))))


def _parsed(where: str, text: bytes | None) -> dict[str, Any]:
    if text is None:
        raise ProvenanceError(f"The lock needs a package whose {where} is not in the commit.", "Commit it.")
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProvenanceError(f"{where} is not TOML: {error}", "Correct it.") from error


def _refuse_compiled(where: str, said: Mapping[str, Any], setup: bytes | None) -> None:
    backend = str(said.get("build-system", {}).get("build-backend", ""))
    extends = "ext-modules" in said.get("tool", {}).get("setuptools", {})
    if (
        not COMPILING.fullmatch(backend)
        and not extends
        and not EXTENSIONS.search((setup or b"").decode("utf-8", "replace"))
    ):
        return
    raise ProvenanceError(
        f"{where}: the package has compiled modules, and EMS ships the commit's files without building them.",
        "Publish its wheel to the package index that you use, and name it as any other package in "
        "environments/NAME/requirements.in; or build it in the job's own command, and leave it out of the lock.",
    )


def _roots(folder: str, said: Mapping[str, Any], files: Collection[str]) -> Iterator[str]:
    """As the build backends find modules: where pyproject.toml says, else in src/, else beside pyproject.toml."""
    named = list(dict.fromkeys(posixpath.normpath(posixpath.join(folder, root)) for root in named_roots(said)))
    source = posixpath.normpath(posixpath.join(folder, "src"))
    usual = source if any(file.startswith(f"{source}/") for file in files) else posixpath.normpath(folder or ".")
    yield from named or [usual]


def named_roots(said: Mapping[str, Any]) -> Iterator[str]:
    """The folders of modules that a pyproject.toml names, from its own, in the ways of the usual build backends."""
    tools = said.get("tool", {})
    setuptools, hatch = tools.get("setuptools", {}), tools.get("hatch", {}).get("build", {})
    if isinstance(packages := setuptools.get("packages"), dict):
        yield from packages.get("find", {}).get("where", ())
    yield from (setuptools.get("package-dir") or {}).values()
    for package in (hatch.get("targets", {}).get("wheel", {}) or {}).get("packages") or hatch.get("packages") or ():
        yield posixpath.dirname(package.rstrip("/")) or "."
    for package in tools.get("poetry", {}).get("packages") or ():
        yield package.get("from", ".")
    if root := tools.get("pdm", {}).get("build", {}).get("package-dir"):
        yield root
    backend = tools.get("uv", {}).get("build-backend", {})
    if "module-root" in backend:
        yield backend["module-root"] or "."


def _entry_points(project: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    groups = {"console_scripts": project.get("scripts"), "gui_scripts": project.get("gui-scripts")}
    for group, points in (groups | project.get("entry-points", {})).items():
        yield from ((group, name, to) for name, to in (points or {}).items() if isinstance(to, str))
