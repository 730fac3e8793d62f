"""Processes of a job that left its group: by a variable that they were started with, or by whom they descend from.

On Linux standard library alone, and an orphan comes to the nearest process above it that has adopted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
SET_CHILD_SUBREAPER = 36


def having(name: str, value: str) -> Iterator[int]:
    """Living processes whose variable has this value. Spared is this one, with those that it descends from."""
    if (PROC / "self/environ").exists():
        return _by_proc(f"{name}={value}".encode())
    return _by_psutil(name, value)


def adopt() -> None:
    """Become the parent of the orphans among this process's descendants, on Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """The living ones of this process, where /proc lists them."""
    below: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            state, parent, *_ = _about(int(folder.name))
            if state != "Z":
                below.setdefault(int(parent), []).append(int(folder.name))
    found, asked = [], [os.getpid()]
    while asked:
        children = below.get(asked.pop(), [])
        found += children
        asked += children
    return found


def _about(number: int) -> list[str]:
    """State, parent, and what else /proc says of a process after its name."""
    return (PROC / str(number) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _by_proc(wanted: bytes) -> Iterator[int]:
    """Zombies have no variables."""
    own = set(_line())
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
            if int(folder.name) not in own and wanted in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)


def _line() -> Iterator[int]:
    """This process, its parent, and so on."""
    number = os.getpid()
    with contextlib.suppress(OSError):  # those above are somebody else's, and hidden
        while number:
            yield number
            number = int(_about(number)[1])


def _by_psutil(name: str, value: str) -> Iterator[int]:
    import psutil

    own = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            ours = process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
            continue
        if ours and process.pid not in own:
            yield process.pid
