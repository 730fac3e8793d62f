"""Where EMS keeps what it can make again, shared by all labs of a user: engine, environments, repositories."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$EMS_CACHE_DIR`, or the user's cache folder of this system. It need not exist yet."""
    if override := os.environ.get("EMS_CACHE_DIR"):
        return Path(override).expanduser().absolute()
    import platformdirs  # which a Python has not that has nothing installed

    return platformdirs.user_cache_path("ems", appauthor=False)
