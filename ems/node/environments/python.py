"""Which Python an environment stands on: the first on PATH whose version it takes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ems.base.errors import ProvenanceError
from ems.node.environments.recipe import Recipe

ASK_S = 60.0  # on a file system that is slow to answer
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


def find(recipe: Recipe) -> Python:
    """The one for this environment; ProvenanceError says which there are."""
    seen: dict[Path, Python] = {}
    for found in _all():
        seen.setdefault(found.path, found)
        if recipe.takes(found.version):
            return found
    said = ", ".join(f"{'.'.join(map(str, each.version))} ({each.path})" for each in seen.values()) or "none"
    number = recipe.python.rstrip("+")
    wanted = f"{number} or newer" if recipe.python.endswith("+") else number
    raise ProvenanceError(
        f"Environment {recipe.name!r} needs Python {wanted}, which {platform.node()} has not; found: {said}.",
        f"Name a module that has it in `modules` of the place or of the experiment, as python/{number}.",
    )


def runs(path: Path) -> bool:
    """Whether an interpreter is there, and starts."""
    try:
        return subprocess.run([path, "-I", "-c", ""], check=False, timeout=ASK_S, capture_output=True).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _all() -> Iterator[Python]:
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
        done = subprocess.run([path, "-I", "-c", ASKED], check=False, timeout=ASK_S, capture_output=True)
        base, *version = json.loads(done.stdout)
        return Python(Path(base), tuple(version))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
