"""Where a lab is, or would be: the repository that a folder lies in, and the lab above it."""

from __future__ import annotations

import os
from pathlib import Path

from ems.base.errors import ProvenanceError
from ems.base.process import CommandFailed, run


def repository_of(folder: Path) -> Path | None:
    """The top of the git repository that `folder`, which need not exist, lies in; None if it lies in none.

    A repository that ignores the folder, as one of a whole home folder may, has nothing to do with it.
    ProvenanceError if git cannot say.
    """
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    try:
        top = Path(run([*_git(there), "rev-parse", "--show-toplevel"]).removesuffix("\n"))
    except CommandFailed as error:
        if "not a git repository" in error.stderr.lower():
            return None
        hint = "Install git." if error.code == 127 else "A lab needs a repository with its files: git clone it."
        raise ProvenanceError(f"{there}: git failed: {error.stderr.strip()}", hint) from error
    return None if folder.resolve() != top.resolve() and is_ignored(top, folder) else top


def is_ignored(top: Path, path: Path) -> bool:
    """Whether git, in the repository at `top`, ignores `path`, which need not exist."""
    below = os.path.relpath(path.parent.resolve() / path.name, top.resolve())
    try:
        run([*_git(top), "check-ignore", "--quiet", "--no-index", "--", below])
    except CommandFailed as error:
        if error.code == 1:
            return False
        raise ProvenanceError(f"{top}: git failed: {error.stderr.strip()}") from error
    return True


def lab_above(folder: Path, top: Path) -> Path | None:
    """The folder of the lab between the repository's top and `folder`, which itself is not asked; None without one."""
    for each in folder.parents:
        file = each / "Pulumi.yaml"
        if file.is_file() and "ems:lab_id" in file.read_text(encoding="utf-8", errors="replace"):
            return each
        if each == top:
            break
    return None


def _git(folder: Path) -> list[str | Path]:
    return ["env", "LC_ALL=C", "git", "-C", folder]
