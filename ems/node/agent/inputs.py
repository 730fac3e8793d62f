"""The folder that a job finds its inputs in."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


def lay_out_inputs(files: Mapping[str, str], folder: Path) -> None:
    """Make `folder` anew, with a link to each file under its name; nothing can be added to it."""
    remove_inputs(folder)
    folder.mkdir()
    for name, file in files.items():
        (folder / name).symlink_to(file)
    folder.chmod(0o555)


def remove_inputs(folder: Path) -> None:
    """Remove the folder and its links, if it is there; the files themselves stay."""
    if folder.exists():
        folder.chmod(0o755)
        shutil.rmtree(folder)
