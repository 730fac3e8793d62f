"""The oldest engine that EMS supports, built like the pinned one: `python -m tests.engine.oldest`."""

from __future__ import annotations

from pathlib import Path

from ems.base import aside
from ems.base.cache import cache_dir
from ems.base.locks import exclusive
from ems.base.messages import Say, quiet
from ems.engine import install
from ems.engine.build import build


def ensure(say: Say = quiet) -> Path:
    """The folder of its programs, built into the user's cache if it is not there."""
    folder = cache_dir() / "pulumi" / install.OLDEST
    with exclusive(folder.with_name(f"{folder.name}.lock")):
        if not (folder / "bin/pulumi").exists():
            with aside.making(folder) as part:
                build(install.OLDEST, Path(__file__).parent, part, say)
    return folder / "bin"
