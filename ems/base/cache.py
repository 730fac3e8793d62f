"""Where EMS keeps what it can make again, shared by all labs of a user: engine, environments, repositories."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """`$EMS_CACHE_DIR`, or the user's cache folder of this system. It need not exist yet."""
    override = os.environ.get("EMS_CACHE_DIR")
    return Path(override).expanduser().absolute() if override else platformdirs.user_cache_path("ems", appauthor=False)


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
