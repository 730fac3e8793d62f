"""What an agent far away needs, on its way there; where it went is noted in the run's folder here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ems.base import aside
from ems.clusters.pull import Pull
from ems.clusters.site import Site
from ems.node.environments.ready import CODE, ORDER

THERE = "there"  # the folder, in that of the run here, of what differs there
SENT = "sent"  # the file that says where all was sent to


def send(site: Site, run_dir: Path, there: PurePosixPath, mail: Pull | None, more: Sequence[Path] = ()) -> None:
    """Send the files of a run's folder here to its folder there, and tell its mailbox what the database has.

    EmsError: no space, no right.
    """
    for file in (run_dir / CODE, run_dir / ORDER, *more, run_dir / THERE / "agent.json"):
        if file.exists():
            site.send(file, there / file.name)
    (run_dir / ORDER).unlink(missing_ok=True)  # its variables may hold a password of a package index
    if mail:
        mail.sync()
    aside.write(run_dir / SENT, str(there))


def folder(run_dir: Path) -> PurePosixPath | None:
    """Where a run's files were sent to; None if they were not."""
    try:
        return PurePosixPath((run_dir / SENT).read_text(encoding="utf-8"))
    except OSError:
        return None
