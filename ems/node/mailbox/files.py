"""What jobs left in EMS_OUTPUT_DIR, in a mailbox: a store of contents, and lists of what is recorded of them.

A content is removed once no list names it, by steps between which whoever records it again sees that it is gone.
Standard library alone, as who fetches asks where nothing is installed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.errors import DatabaseUnavailable
from ems.stores import KEPT, key

STORE, FILES = "store", "files"
LIST = re.compile(r"(\d{6,})-(\d{8,})\.json")
OLD, LOST = ".old", ".lost"
MOST_LISTS = 4  # of some hundred files each, in one answer


class Files:
    """Of the mailbox in a folder. OSError as of any file."""

    def __init__(self, mailbox: Path) -> None:
        self._store, self._lists = mailbox / STORE, mailbox / FILES

    def make(self) -> None:
        """Have both folders; the store is marked as one."""
        for folder in (self._store / "incoming", self._lists):
            folder.mkdir(parents=True, exist_ok=True)
        if not (self._store / KEPT).exists():
            aside.write(self._store / KEPT, json.dumps({"version": 1}))

    # Who records them

    def record(self, attempt: int, outputs: Sequence[Mapping[str, Any]]) -> None:
        """By run `attempt`, what is in the store now. DatabaseUnavailable if some of it was removed meanwhile."""
        number = max((parts_of(name)[1] for name in self.names()), default=0) + 1
        file = self._lists / f"{attempt:06d}-{number:08d}.json"
        aside.write(file, json.dumps(list(outputs)))
        if not all(self._content(output["digest"]).exists() for output in outputs):
            file.unlink()
            raise DatabaseUnavailable(
                "What was to be recorded was fetched and removed meanwhile.", "It is tried again."
            )

    # Who fetches them

    def names(self) -> list[str]:
        """Of the lists that nobody has confirmed, oldest first."""
        if not self._lists.is_dir():
            return []
        return sorted(path.name for path in self._lists.iterdir() if LIST.fullmatch(path.name))

    def listed(self) -> tuple[list[dict[str, Any]], int]:
        """The oldest lists, and how many are left after these."""
        names, found = self.names(), []
        for name in names[:MOST_LISTS]:
            with suppress(FileNotFoundError):  # confirmed, or taken back, meanwhile
                data = (self._lists / name).read_bytes()
                found.append({"name": name, "sha256": digest_of(data), "outputs": json.loads(data)})
        return found, max(0, len(names) - MOST_LISTS)

    def pieces(self, wanted: Iterable[tuple[str, int]], most_bytes: int) -> tuple[list[dict[str, Any]], bytes]:
        """Contents by SHA-256, each from a byte on, some `most_bytes` in all: which pieces, and these one after the
        other. `size`: of a piece; None: the content is not here."""
        found: list[dict[str, Any]] = []
        content = b""
        for digest, start in wanted:
            if len(content) >= most_bytes:
                break
            try:
                with self._content(digest).open("rb") as file:
                    file.seek(start)
                    piece = file.read(most_bytes - len(content))
            except FileNotFoundError:
                found.append({"digest": digest, "size": None})
                continue
            found.append({"digest": digest, "size": len(piece)})
            content += piece
        return found, content

    def lost(self) -> list[str]:
        """Names of files of which the contents were not here any more when they were asked for."""
        found = sorted(self._lists.glob(f"*{LOST}")) if self._lists.is_dir() else []
        return [name for path in found for name in json.loads(path.read_bytes())]

    def confirm(self, fetched: Mapping[str, str], lost: Mapping[str, Mapping[str, Any]]) -> None:
        """Remove lists by name and SHA-256, and contents that no list names; note the `names` of what is lost."""
        due: set[str] = set()
        for name, digest in {**fetched, **{name: said["sha256"] for name, said in lost.items()}}.items():
            path = self._lists / name
            if LIST.fullmatch(name) and path.exists() and digest_of(data := path.read_bytes()) == digest:
                due |= {output["digest"] for output in json.loads(data)}
                if name in lost:
                    aside.write(path.with_name(name + LOST), json.dumps(lost[name]["names"]))
                path.unlink()
        if due:
            self._remove(due)

    def _remove(self, due: Iterable[str]) -> None:
        """Aside first: a list that was written before is read now, and who writes one later sees that it is gone."""
        for digest in due:
            path = self._content(digest)
            with suppress(FileNotFoundError):
                path.replace(path.with_name(path.name + OLD))
        named = set(self._named())
        for old in self._store.glob(f"??/*{OLD}"):
            digest = old.name.removesuffix(OLD)
            if digest in named:
                old.replace(old.with_name(digest))
            else:
                old.unlink(missing_ok=True)

    def _named(self) -> Iterator[str]:
        for name in self.names():
            with suppress(FileNotFoundError):
                yield from (output["digest"] for output in json.loads((self._lists / name).read_bytes()))

    def _content(self, digest: str) -> Path:
        return self._store / key(digest)


def digest_of(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def parts_of(name: str) -> tuple[int, int]:
    """The numbers in the name of a list: attempt, number."""
    found = LIST.fullmatch(name)
    assert found, name
    return int(found[1]), int(found[2])
