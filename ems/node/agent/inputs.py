"""The folder that a job finds its inputs in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ems.base import aside


def lay_out_inputs(files: Mapping[str, str], folder: Path) -> None:
    """Make `folder` anew, with a link to each file under its name; nothing can be added to it."""
    aside.remove(folder)
    folder.mkdir()
    for name, file in files.items():
        (folder / name).symlink_to(file)
    folder.chmod(0o555)
