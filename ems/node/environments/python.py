"""Which Python an environment stands on: the first on PATH whose version it takes, else one that `uv` has, or gets."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ems.base.errors import ProvenanceError
from ems.node.environments.recipe import Order, Recipe

ASK_S = 60.0  # on a file system that is slow to answer
FETCH_S = 300.0
ASKED = "import json, sys; print(json.dumps([sys._base_executable or sys.executable, *sys.version_info[:3]]))"


@dataclass(frozen=True)
class Python:
    """An interpreter that no environment encloses. `version`: (MAJOR, MINOR, PATCH)."""

    path: Path
    version: tuple[int, ...]

    @property
    def tag(self) -> str:
        """What packages with compiled code differ by, as cp312."""
        return "cp{}{}".format(*self.version)


def find(recipe: Recipe, order: Order) -> Python:
    """The one for this environment; ProvenanceError says which there are."""
    seen: dict[Path, Python] = {}
    for found in chain(_on_path(), _brought(recipe, order)):
        seen.setdefault(found.path, found)
        if recipe.takes(found.version):
            return found
    said = ", ".join(f"{'.'.join(map(str, each.version))} ({each.path})" for each in seen.values()) or "none"
    number = recipe.python.rstrip("+")
    wanted = f"{number} or newer" if recipe.python.endswith("+") else number
    raise ProvenanceError(
        f"Environment {recipe.name!r} needs Python {wanted}, which {platform.node()} has not; found: {said}.",
        f"Install it there: uv python install {number}; on a Slurm machine a module in `modules` may have it.",
    )


def runs(path: Path) -> bool:
    """Whether an interpreter is there, and starts."""
    try:
        return subprocess.run([path, "-I", "-c", ""], check=False, timeout=ASK_S, capture_output=True).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _brought(recipe: Recipe, order: Order) -> Iterator[Python]:
    """Those of `uv`, which fetches one where it has none and there is a way to the internet."""
    uv, wanted, variables = shutil.which("uv") or order.uv, recipe.python.rstrip("+"), {**order.variables, **os.environ}
    for asked in ("find", "install", "find"):
        said = _said([uv, "python", asked, wanted], variables, FETCH_S).strip()
        if said and (found := _asked(Path(said))):
            yield found


def _on_path() -> Iterator[Python]:
    """Those on PATH, folder by folder."""
    for folder in dict.fromkeys(os.environ.get("PATH", os.defpath).split(os.pathsep)):
        try:
            names = sorted(Path(folder).glob("python3*")) if folder else []
        except OSError:
            continue
        plain = [path for path in names if path.name == "python3"]
        for path in plain + [path for path in names if path.name.startswith("python3.") and path.name[8:].isdigit()]:
            if found := _asked(path):
                yield found


def _asked(path: Path) -> Python | None:
    try:
        base, *version = json.loads(_said([str(path), "-I", "-c", ASKED], os.environ, ASK_S))
        return Python(Path(base), tuple(version))
    except ValueError:
        return None


def _said(command: Sequence[str], variables: Mapping[str, str], limit_s: float) -> str:
    """What a command prints; "" if it fails."""
    try:
        done = subprocess.run(command, check=True, timeout=limit_s, capture_output=True, text=True, env=variables)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout
