"""Processes by a variable that they were started with, whatever group they are of. On Linux standard library alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def having(name: str, value: str) -> Iterator[int]:
    """Living processes whose variable has this value. Spared is this one, with those that it descends from."""
    if (PROC / "self/environ").exists():
        return _by_proc(f"{name}={value}".encode())
    return _by_psutil(name, value)


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
            number = int((PROC / str(number) / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])


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
