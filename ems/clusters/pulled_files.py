"""Files that jobs left where the lab's store is out of reach: fetched from a run's mailbox, piece by piece, and stored.

What has come of a file lies in a part of its own, so that whoever comes next goes on there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ems.base.errors import Unreachable
from ems.base.private import make_folder
from ems.clusters import Fetched
from ems.clusters.pulled_runs import PulledRuns
from ems.databases import Output
from ems.node.mailbox.files import parts_of
from ems.stores import Source, Store

FILES_WAIT = "files that the job left wait to be stored here: {}"
AT_ONCE = 8  # files on their way into the store
ASKED_AT_ONCE = 1_000

Ask = Callable[[Sequence[tuple[str, int]]], dict[str, Any]]
"""Puts the question `contents` to the place. Unreachable."""


@dataclass(frozen=True)
class Stored:
    """`lists`: those of which all is in the store that the place has; `lost`: SHA-256 of what it does not have whole;
    `bytes`: fetched; `bytes_left`: of what there was no time for."""

    lists: Sequence[Mapping[str, Any]]
    lost: frozenset[str]
    bytes: int
    bytes_left: int


class PulledFiles:
    """Of one experiment. `parts`: the folder of what has not come whole yet."""

    def __init__(self, parts: Path, store: Callable[[], Store], ask: Ask) -> None:
        self._parts, self._store, self._ask = parts, store, ask
        self._had: set[str] = set()  # which the store has
        self._lost: set[str] = set()
        self._damaged: set[str] = set()  # once, so that it was fetched again

    def taken(self, runs: PulledRuns, answer: Mapping[str, Any], give_up_at: float) -> tuple[dict[str, Any], Fetched]:
        """Store and record what an answer of `ems.node.mailbox.exchange` lists: what is to be confirmed, and
        how much it was.

        One question for contents is asked at least. StoreUnavailable, StoreError of the lab's store; Unreachable. What
        has come by then is kept.
        """
        stored = self._stored(answer["files"], give_up_at)
        fetched: dict[str, str] = {}
        lost: dict[str, dict[str, Any]] = {}
        for each in stored.lists:
            attempt, _ = parts_of(each["name"])
            found = [Output(**output) for output in each["outputs"] if output["digest"] not in stored.lost]
            gone = [output for output in each["outputs"] if output["digest"] in stored.lost]
            if not runs.put_outputs(attempt, found):
                break
            if not gone:
                fetched[each["name"]] = each["sha256"]
            elif runs.is_over(attempt):
                lost[each["name"]] = {"sha256": each["sha256"], "names": [output["name"] for output in gone]}
            else:  # whoever has recorded it takes it back, and tries again
                self._lost.difference_update(output["digest"] for output in gone)
        left = len(answer["files"]) - len(fetched) - len(lost) + answer["files_left"]
        news = {"files": fetched, "lost": lost} if fetched or lost else {}
        return news, Fetched(len(fetched), stored.bytes, left, stored.bytes_left)

    def _stored(self, lists: Sequence[Mapping[str, Any]], give_up_at: float) -> Stored:
        """Have the contents of these lists in the lab's store, as far as there is time."""
        due = {output["digest"]: output["size"] for each in lists for output in each["outputs"]}
        missing, fetched = {digest: due[digest] for digest in due if digest not in self._had | self._lost}, 0
        while missing:
            fetched += self._fetch(missing)
            missing = {digest: size for digest, size in missing.items() if digest not in self._had | self._lost}
            if time.monotonic() > give_up_at:
                break
        with suppress(OSError):  # there are others
            self._parts.rmdir()
        whole = [each for each in lists if not missing.keys() & {output["digest"] for output in each["outputs"]}]
        left = sum(size - self._start(digest) for digest, size in missing.items())
        return Stored(whole, frozenset(self._lost & due.keys()), fetched, left)

    def _fetch(self, missing: Mapping[str, int]) -> int:
        """One answer's worth of these; how many bytes that was."""
        make_folder(self._parts)
        asked = [(digest, self._start(digest)) for digest in list(missing)[:ASKED_AT_ONCE]]
        answer, start = self._ask(asked), 0
        if not answer:
            raise Unreachable("EMS's code is no longer there.", "`ems up` sends it again.")
        content, whole = answer.get("content", b""), []
        for piece in answer["pieces"]:
            digest, size = piece["digest"], piece["size"] or 0
            if piece["size"] is None or (size == 0 and self._start(digest) < missing[digest]):
                self._lose(digest)
                continue
            with self._part(digest).open("ab") as file:
                file.write(content[start : start + size])
            start += size
            if self._start(digest) >= missing[digest]:
                whole.append(digest)
        self._keep(whole)
        return start

    def _keep(self, whole: Iterable[str]) -> None:
        store = self._store()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda digest: self._kept(store, digest), whole):
                pass

    def _kept(self, store: Store, digest: str) -> None:
        """One that came whole; one that is not what it should be is fetched once more: the part may have been torn."""
        part = self._part(digest)
        with part.open("rb") as file:
            is_right = hashlib.file_digest(file, "sha256").hexdigest() == digest
        if is_right:
            with Source(part) as source:
                store.put(source)
            self._had.add(digest)
        elif digest in self._damaged:
            self._lost.add(digest)
        self._damaged.add(digest)
        part.unlink()

    def _lose(self, digest: str) -> None:
        self._lost.add(digest)
        self._part(digest).unlink(missing_ok=True)

    def _part(self, digest: str) -> Path:
        return self._parts / digest

    def _start(self, digest: str) -> int:
        """How many bytes have come."""
        with suppress(FileNotFoundError):
            return self._part(digest).stat().st_size
        return 0
