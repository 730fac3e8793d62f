"""An environment built by `uv` on a node, and archived. As `ems.provenance.building` on a laptop."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ems.base.errors import ProvenanceError
from ems.base.messages import Say, counted
from ems.node.environments import archive
from ems.node.environments.python import Python
from ems.node.environments.recipe import Order, Recipe

LEFT_S = 24 * 3600.0  # after which what a builder that was killed has left is nobody's


def build(recipe: Recipe, python: Python, folder: Path, scratch: Path, order: Order, say: Say) -> None:
    """Build it in `scratch`, and publish it as the archive in `folder`.

    ProvenanceError: a package cannot be obtained, or is not the one that was pinned. OSError: no space, no right.
    """
    _tidy(folder)
    with tempfile.TemporaryDirectory(prefix="build-", dir=scratch, ignore_cleanup_errors=True) as below:
        made, cache = Path(below, "environment"), Path(below, "cache")
        uv = _Uv(recipe, order, cache)
        say(f"Python {'.'.join(map(str, python.version))} ({python.path})")
        uv("venv", "--no-project", "--relocatable", "--python", str(python.path), str(made))
        lock = Path(below, "requirements.txt")
        lock.write_text(recipe.lock, encoding="utf-8")
        say(counted(recipe.lock.count("=="), "package"))
        options = ("--require-hashes", "--allow-empty-requirements", "--link-mode", "copy", "--compile-bytecode")
        uv("pip", "sync", *options, "--python", str(made / "bin/python"), str(lock))
        say("archiving")
        archive.write(made, folder, recipe)
    say("built")


class _Uv:
    """The `uv` of the node's modules, else that of who submitted; its cache lies on the node unless that is said."""

    def __init__(self, recipe: Recipe, order: Order, cache: Path) -> None:
        self._name, found = recipe.name, shutil.which("uv") or order.uv
        if not os.access(found, os.X_OK):
            hint = "Install it there; on a Slurm machine a module in `modules` of the place may have it."
            raise ProvenanceError(f"Environment {recipe.name!r} is built by `uv`, which is not on this node.", hint)
        self._program = found
        own: Mapping[str, str] = {"UV_SYSTEM_CERTS": "true", "UV_CACHE_DIR": str(cache), **order.variables}
        self._variables = {**own, **os.environ, "UV_PYTHON_DOWNLOADS": "never"}

    def __call__(self, *words: str) -> None:
        command = [self._program, *words, "--quiet"]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=self._variables, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            said = done.stderr.strip() or f"`uv` ended with exit code {done.returncode}"
            hint = "A node needs the package index: try again, or lock the environment anew (ems env lock)."
            raise ProvenanceError(f"The packages of environment {self._name!r} cannot be installed:\n{said}", hint)


def _tidy(folder: Path) -> None:
    """Remove what builders that were killed have left."""
    for path in folder.parent.glob(f"{folder.name}.*"):
        with suppress(OSError):  # another's, or gone meanwhile
            if path.suffix in {".part", ".old"} and time.time() - path.stat().st_mtime > LEFT_S:
                archive.remove(path)
