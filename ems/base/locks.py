"""One process at a time. Standard library alone, Python 3.9 or newer."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ems.base import filesystems

SHARED = "shared"  # a file in a folder in which several machines work
LOCAL = Path("/tmp")


@contextmanager
def exclusive(lock_file: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `lock_file` alone; calls `waiting` once if another process holds it. A holder that dies releases it."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def share(folder: Path) -> None:
    """Note that several machines work in this folder: its locks are each machine's own from now on."""
    (folder / SHARED).touch()


def lock_folder(folder: Path) -> Path:
    """Where the locks of a folder lie: in it, as long as it is of this machine alone; else on this machine's own disk.

    On a file system that machines share, flock may be refused, hang or be ignored, and a process number is another
    process on each of them. There the claim in the database decides, and Slurm. PermissionError: /tmp has a folder of
    that name, which is another user's.
    """
    if not (folder / SHARED).exists() and not (folder.is_dir() and filesystems.network(folder)):
        return folder
    below = own_folder() / "locks" / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    below.mkdir(parents=True, exist_ok=True)
    return below


def own_folder() -> Path:
    """The user's own on this machine's disk, of a short path. PermissionError: there is one that is another user's."""
    own = LOCAL / f"ems-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.is_symlink() or own.stat().st_uid != os.getuid():
        raise PermissionError(1, "another user's", str(own))
    return own
