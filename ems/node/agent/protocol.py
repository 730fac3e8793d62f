"""What agents, drivers and batches of results agree on, by number: code of another number is not spoken with.

A bundle has the driver of the EMS that made it, and a spool the batches of the one that wrote it; an agent may be
newer or older, where versions are installed side by side.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from ems.base.errors import ProvenanceError
from ems.base.version import __version__

PROTOCOL = 1
BATCH = b"EMSBAT01"  # with which each batch of this number begins
FILE, VERSION = "ems/node/agent/protocol.py", "ems/base/version.py"


def require_driver(bundle: Path) -> None:
    """ProvenanceError, if a whole bundle has a driver of another number."""
    number, version = _of_driver(bundle)
    if number != PROTOCOL:
        raise ProvenanceError(
            f"{bundle} has a driver of EMS {version} (protocol {number}); this agent is EMS {__version__} "
            f"(protocol {PROTOCOL}).",
            "`ems up STACK` makes the bundle again, with the same version of EMS as the agent.",
        )


def require_batches(folders: Iterable[Path]) -> None:
    """ProvenanceError, if a batch in these folders is of another number; damaged ones are not judged here."""
    for folder in folders:
        for batch in sorted(folder.glob("*.batch")):
            _require_batch(batch)


def _require_batch(batch: Path) -> None:
    try:
        with batch.open("rb") as file:
            begin = file.read(len(BATCH))
    except OSError:  # a folder; stored meanwhile; not ours to read
        return
    if begin[:6] == BATCH[:6] and begin != BATCH:
        raise ProvenanceError(
            f"{batch} was written by another version of EMS ({begin!r}; this one, EMS {__version__}, reads {BATCH!r}).",
            "Finish the run with that version, which stores it; or remove the file, and its points are computed again.",
        )


def _of_driver(bundle: Path) -> tuple[int, str]:
    """Number and version of what is in a bundle; a bundle without EMS's code has nothing to disagree about."""
    try:
        with ZipFile(bundle) as archive:
            own = ZipFile(io.BytesIO(archive.read("ems.zip")))
        texts = [own.read(name).decode() if name in own.namelist() else "" for name in (FILE, VERSION)]
    except (KeyError, BadZipFile, OSError):
        return PROTOCOL, ""
    if not texts[1]:
        return PROTOCOL, ""
    number = re.search(r"^PROTOCOL = (\d+)$", texts[0], re.MULTILINE)
    version = re.search(r'__version__ = "(.+)"', texts[1])
    return int(number[1]) if number else 0, version[1] if version else "unknown"
