"""What a database's side asks of a mailbox, in one question: it tells what it has, and gets what it has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ems.node.mailbox.folder import Folder

MOST_BYTES = 16_000_000


def exchange(
    run_dir: Path,
    database: Mapping[str, str],
    known: Mapping[str, Any] | None = None,
    fetched: Mapping[str, str] | None = None,
    damaged: Mapping[str, str] | None = None,
    after: str = "",
    files: Mapping[str, str] | None = None,
    lost: Mapping[str, Mapping[str, Any]] | None = None,
    most_bytes: int | None = None,
) -> dict[str, Any]:
    """Note what `database` knows, confirm what it has fetched, and give batches, those after the one named `after`.

    `most_bytes`: as of `Folder.parcel`; None: MOST_BYTES.

    How runs stand is read before the batches are listed: all that a released run has stored is among these, and so it
    is with the lists of `files`. UserError if the mailbox is another database's.
    """
    folder = Folder(run_dir)
    folder.own(database)
    if known is not None:
        folder.know(known)
    folder.confirm(fetched or {}, damaged=damaged or {})
    folder.files.confirm(files or {}, lost or {})
    here = folder.read("row.json") or {"row": {}, "runs": []}
    heard = (folder.read("known.json") or {"heard": 0})["heard"]
    batches, content, left, left_bytes = folder.parcel(MOST_BYTES if most_bytes is None else most_bytes, after)
    lists, lists_left = folder.files.listed()
    counts = {name: here["row"].get(name, 0) for name in ("points_done", "points_failed", "rows_stored")}
    said = {"runs": here["runs"], "heard": heard, "now": datetime.now(UTC).isoformat(), **counts}
    of_files = {"files": lists, "files_left": lists_left, "lost": folder.files.lost()}
    return {**said, **of_files, "batches": batches, "left": left, "left_bytes": left_bytes, "content": content}


def contents(run_dir: Path, wanted: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """What jobs left there, by SHA-256, each from a byte on, as far as one answer takes it."""
    pieces, content = Folder(run_dir).files.pieces(wanted, MOST_BYTES)
    return {"pieces": pieces, "content": content}
