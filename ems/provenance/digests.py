"""SHA-256 of files, remembered in the user's cache for as long as a file stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.cache import cache_dir
from ems.base.errors import ProvenanceError
from ems.base.locks import exclusive

SETTLED_NS = 2 * 10**9  # longer than the step of any file system's clock: a later change has another time


def sha256(file: Path) -> str:
    """64 hexadecimal digits; ProvenanceError if `file` cannot be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ProvenanceError(f"{file} cannot be read: {error.strerror}.", f"See: ls -l {file}") from error


def known_sha256(file: Path) -> str:
    """The same, but the file is read again only if its times, size, mode or inode have changed since.

    OSError if there is no such file.
    """
    before = _about(file)
    known = _remembered(file)
    if known.get("about") == before:
        return str(known["sha256"])
    found = sha256(file)
    if _about(file) == before and time.time_ns() - max(before[:2]) > SETTLED_NS:
        remember(file, found)
    return found


def remember(file: Path, digest: str) -> None:
    """Note that `file`, as it is now, has this digest."""
    memo = _memo(file)
    with exclusive(memo.parent / ".lock"):
        aside.write(memo, json.dumps({"about": _about(file), "sha256": digest}), lasting=False)


def _remembered(file: Path) -> dict[str, Any]:
    memo = _memo(file)
    try:
        found: dict[str, Any] = json.loads(memo.read_text()) if memo.exists() else {}
    except ValueError:  # cut short by a power failure: the file is read again
        return {}
    return found


def _about(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode, found.st_ino]


def _memo(file: Path) -> Path:
    return cache_dir() / "digests" / f"{hashlib.sha256(os.fsencode(file.absolute())).hexdigest()}.json"
