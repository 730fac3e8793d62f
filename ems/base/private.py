"""What EMS makes in a lab's work folder is for its owner alone: records, logs, and where the database is.

What is there already keeps its rights, so that a folder can be opened to a group: `chmod g+rx .ems`.
Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """The folder, and those above it that are missing, which only their owner may enter. OSError if it cannot be."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")


def make_file(file: Path) -> None:
    """An empty file that only its owner may read, if there is none; OSError if it cannot be."""
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
