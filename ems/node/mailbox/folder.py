"""The files of a mailbox, from both sides.

Standard library alone, as who fetches asks where nothing is installed.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.errors import UserError
from ems.databases import PointState
from ems.databases.columns import spans
from ems.databases.points import only, touched
from ems.databases.states import Row
from ems.node.mailbox.files import Files, digest_of
from ems.spool.batch import Batch

FOLDER, OUTBOX, FAILED = "mailbox", "outbox", "failed"
NAME = re.compile(r"(\d{6,})-(\d{8,})-(\d{6,})\.batch")
DAMAGED = ".damaged"
STATES: tuple[PointState, ...] = ("stored", "empty", "failed", "due")
TIMES = re.compile(r".*_at|lease_until|now")


class Folder:
    """The mailbox in a run's folder. OSError as of any file."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FOLDER
        self.outbox, self.failed = self.path / OUTBOX, self.path / FAILED
        self.files = Files(self.path)

    def make(self) -> None:
        """Have it, empty if there is none."""
        for folder in (self.outbox, self.failed):
            folder.mkdir(parents=True, exist_ok=True)
        self.files.make()

    def read(self, name: str) -> dict[str, Any] | None:
        """What a JSON file here says; None if there is none."""
        try:
            found: dict[str, Any] = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        return found

    def write(self, name: str, said: Mapping[str, Any]) -> None:
        """Replace a JSON file, whole."""
        aside.write(self.path / name, json.dumps(said))

    def waiting(self) -> list[str]:
        """Names of the batches that nobody has confirmed, oldest first."""
        if not self.outbox.is_dir():
            return []
        return sorted(path.name for path in self.outbox.iterdir() if NAME.fullmatch(path.name))

    def own(self, database: Mapping[str, str]) -> None:
        """Make it that of a database: `id`, and `name` for people. UserError if it is another's."""
        owner = self.read("owner.json")
        if owner is None:
            self.make()
            self.write("owner.json", database)
        elif owner["id"] != database["id"]:
            raise UserError(
                f"The run's folder {self.path.parent} belongs to another database: {owner['name']}.",
                f"Go on from there, or use another `work_dir` in the place's stack; this one is {database['name']}.",
            )

    def know(self, known: Mapping[str, Any]) -> None:
        """What the database has now. Older news, which came late, changes nothing."""
        before = self.read("known.json")
        if before is None or before["heard"] <= known["heard"]:
            self.write("known.json", known)

    def confirm(self, fetched: Mapping[str, str], *, damaged: Mapping[str, str]) -> None:
        """Batches by name and SHA-256: remove those that the database has, and set aside the damaged ones."""
        for name, digest in {**fetched, **damaged}.items():
            path = self.outbox / name
            if not NAME.fullmatch(name) or not path.exists() or digest_of(path.read_bytes()) != digest:
                continue
            if name in damaged:
                path.replace(path.with_name(path.name + DAMAGED))
            else:
                path.unlink()

    def parcel(self, most_bytes: int, after: str = "") -> tuple[list[dict[str, Any]], bytes, int, int]:
        """The oldest batches whose names come after `after`, at least one, of some `most_bytes` (0: none): how each is
        named, their content one after the other, and how many batches and bytes are left after these."""
        waiting = [(name, self._size(name)) for name in self.waiting() if name > after]
        taken: list[dict[str, Any]] = []
        content = b""
        for name, size in waiting:
            if not most_bytes or (taken and len(content) + size > most_bytes):
                break
            with suppress(FileNotFoundError):  # confirmed meanwhile, by a command that was given up
                data = (self.outbox / name).read_bytes()
                taken.append({"name": name, "size": len(data), "sha256": digest_of(data)})
                content += data
        left = waiting[len(taken) :]
        return taken, content, len(left), sum(size for _, size in left)

    def _size(self, name: str) -> int:
        with suppress(FileNotFoundError):
            return (self.outbox / name).stat().st_size
        return 0


def name_of(attempt: int, number: int, of: int) -> str:
    """Of a batch that run `attempt` stores, and run `of` computed."""
    return f"{attempt:06d}-{number:08d}-{of:06d}.batch"


def parts_of(name: str) -> tuple[int, int, int]:
    """The numbers in the name of a batch: attempt, number, of."""
    found = NAME.fullmatch(name)
    assert found, name
    attempt, number, of = map(int, found.groups())
    return attempt, number, of


def row_text(row: Row) -> dict[str, Any]:
    """A row as JSON has it."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def row_of(text: Mapping[str, Any]) -> dict[str, Any]:
    """The row that `row_text` made `text` of."""
    return {
        name: datetime.fromisoformat(value) if isinstance(value, str) and TIMES.fullmatch(name) else value
        for name, value in text.items()
    }


class Points:
    """How points stand, a byte each: nothing is known of those that are absent."""

    def __init__(self, text: str = "") -> None:
        self.marks = bytearray(zlib.decompress(base64.b64decode(text))) if text else bytearray()

    @staticmethod
    def of(found: Iterable[tuple[PointState, range]]) -> Points:
        """Those that `Database.points` gives."""
        points = Points()
        for state, those in found:
            points._have(those.stop)
            points.marks[those.start : those.stop] = bytes([STATES.index(state) + 1]) * len(those)
        return points

    def text(self) -> str:
        """As JSON has them."""
        return base64.b64encode(zlib.compress(bytes(self.marks), 1)).decode()

    def _have(self, count: int) -> None:
        self.marks.extend(bytes(max(0, count - len(self.marks))))

    def put(self, points: Iterable[int], state: PointState | None) -> None:
        """So they stand now; None: nothing is known of them any more."""
        mark = bytes([STATES.index(state) + 1 if state else 0])
        for first, last in spans(points):
            self._have(last + 1)
            self.marks[first : last + 1] = mark * (last + 1 - first)

    def get(self, point: int) -> PointState | None:
        """How a point stands."""
        mark = self.marks[point] if point < len(self.marks) else 0
        return STATES[mark - 1] if mark else None

    def add(self, batch: Batch, *, is_late: bool, is_due: bool) -> None:
        """A batch is stored after what is known. `is_late`: by a later run than the one that computed it, so that it
        counts for what nothing is known of, or is due; `is_due`: points that failed in it are."""
        if is_late:
            batch = only(batch, {point for point in touched(batch) if self.get(point) in {None, "due"}})
        self.put(batch.replaces, None)
        self.put(batch.points, "stored")
        for mark in batch.marks:
            self.put([mark.point], "empty" if mark.state == "empty" else "due" if is_due else "failed")

    def ranges(self) -> Iterator[tuple[PointState, range]]:
        """As `Database.points`: the stored ones first, then those marked, in ascending order."""
        for form in (rb"\x01+", rb"\x02+|\x03+|\x04+"):
            for found in re.finditer(form, self.marks):
                yield STATES[found[0][0] - 1], range(found.start(), found.end())
