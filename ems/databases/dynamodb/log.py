"""The log of an experiment's batches in DynamoDB: which points each stored, marked, cleared and replaced.

It is the partition `ID/log` of the results: an item for each batch, or several (`BATCH PART`) where its points are
scattered. A batch counts once the experiment's item names it: `last_batch` is not below it, and `void_batches` does not
have it. What became of each point is found by reading the log in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ems.databases import Origin, PointState, columns
from ems.databases.dynamodb.items import LOG, Item, item_of, partition, span_text, spans_of, values_of
from ems.databases.dynamodb.service import Service, key_range
from ems.databases.points import without
from ems.databases.states import Row

Span = tuple[int, int]  # inclusive
Copy = tuple[int, int, int]  # first and last point here, first point there

PIECE_SPANS, PIECES = 2_000, 4  # of one item, some 320 kB at most
PAGE = 4096
RUN = re.compile(rb"(.)\1*", re.DOTALL)
ABSENT, STORED, EMPTY, FAILED, DUE = range(5)
STATES: tuple[PointState | None, ...] = (None, "stored", "empty", "failed", "due")
EARLIER = ("replaced", "remarked", "rewritten")
CODES = {"cleared": ABSENT, "stored": STORED, "empty": EMPTY, "failed": FAILED}


class Points:
    """The state of each point, in a byte each where anything is known."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def __getitem__(self, point: int) -> int:
        page = self._pages.get(point // PAGE)
        return page[point % PAGE] if page else ABSENT

    def fill(self, first: int, last: int, code: int) -> None:
        """Set the state of the points from `first` to `last`, inclusive."""
        for number in range(first // PAGE, last // PAGE + 1):
            start, stop = max(first - number * PAGE, 0), min(last + 1 - number * PAGE, PAGE)
            page = self._pages.setdefault(number, bytearray(PAGE))
            page[start:stop] = bytes([code]) * (stop - start)

    def runs(self, *codes: int) -> Iterator[tuple[int, range]]:
        """Neighbours of the same state, as long as can be, ascending."""
        code, start, stop = ABSENT, 0, 0
        for number, page in sorted(self._pages.items()):
            for found in RUN.finditer(page):
                if (page[found.start()], number * PAGE + found.start()) != (code, stop):
                    if code in codes:
                        yield code, range(start, stop)
                    code, start = page[found.start()], number * PAGE + found.start()
                stop = number * PAGE + found.end()
        if code in codes:
            yield code, range(start, stop)


@dataclass(frozen=True)
class Entry:
    """What a batch did. `spans`: by `stored`, `empty`, `failed`, `cleared`; and what it did to earlier ones: of points
    `replaced` (rows) and `remarked` (marks) nothing else counts any more; those `rewritten` have some rows twice.

    `copied`: points that came from the experiment `source`. `is_adopted`: written by a copy of a whole lab, which
    copies origins by themselves.
    """

    number: int
    attempt: int
    spans: dict[str, list[Span]]
    source: str = ""
    copied: list[Copy] = field(default_factory=list)
    is_adopted: bool = False

    @property
    def touched(self) -> list[Span]:
        """The points that the batch stored, marked or cleared."""
        return [span for name in CODES for span in self.spans.get(name, ())]

    def apply(self, points: Points, wanted_attempt: int = 0) -> None:
        """Set the states that the batch gave its points; failures of runs before `wanted_attempt` are due."""
        for name, code in CODES.items():
            is_due = code == FAILED and self.attempt < wanted_attempt
            for first, last in self.spans.get(name, ()):
                points.fill(first, last, DUE if is_due else code)

    def items(self, experiment_id: str) -> Iterator[Item]:
        """The items that hold this entry in the experiment's log."""
        texts = [(name, span_text(piece)) for name, spans in self.spans.items() for piece in _pieces(spans)]
        texts += [("copied", ",".join(map(_copy_text, piece))) for piece in _pieces(self.copied)]
        key = {"experiment_id": partition(experiment_id, LOG), "attempt": self.attempt}
        key |= {"source": self.source or None, "is_adopted": self.is_adopted or None}
        for part, start in enumerate(range(0, max(len(texts), 1), PIECES)):
            values: dict[str, Any] = {}
            for name, text in texts[start : start + PIECES]:
                values[name] = f"{values[name]},{text}" if name in values else text
            yield item_of(key | values | {"rowid": f"{self.number:010d}" + (f" {part:04d}" if part else "")})


def _pieces(found: list[Any]) -> Iterator[list[Any]]:
    remaining = iter(found)
    while piece := list(islice(remaining, PIECE_SPANS)):
        yield piece


def _copy_text(copied: Copy) -> str:
    return f"{span_text([copied[:2]])}:{copied[2]}"


def _entry(item: Item) -> Entry:
    values = values_of(item)
    spans = {name: spans_of(values[name]) for name in (*CODES, *EARLIER) if name in values}
    copied = []
    for part in str(values.get("copied", "")).split(","):
        here, _, there = part.partition(":")
        copied += [(*span, int(there)) for span in spans_of(here)]
    number, is_adopted = int(values["rowid"][:10]), values.get("is_adopted", False)
    return Entry(number, values["attempt"], spans, values.get("source", ""), copied, is_adopted)


def counts(row: Row, number: int) -> bool:
    """Whether the batch of this number counts; `row`: the experiment's."""
    return number <= row["last_batch"] and number not in row["void_batches"]


def entries(service: Service, row: Row, first: int = 0, last: int | None = None) -> Iterator[Entry]:
    """Of the batches of these numbers, in order; also of those that do not count."""
    until = row["last_batch"] if last is None else last
    bounds = key_range(partition(row["id"], LOG), f"{first:010d}", f"{until:010d}~")
    return map(_entry, service.query(service.results, **bounds))


def known(service: Service, row: Row, wanted_attempt: int = 0) -> Points:
    """The states of points by all batches that count; failures of runs before `wanted_attempt` are due."""
    points = Points()
    for entry in entries(service, row):
        if counts(row, entry.number):
            entry.apply(points, wanted_attempt)
    return points


def origins(service: Service, row: Row) -> list[tuple[Origin, int]]:
    """With the run that copied them. Read backwards, so that only what no later batch touched is left."""
    later, found = Points(), []
    for entry in reversed([entry for entry in entries(service, row) if counts(row, entry.number)]):
        for first, last, there in entry.copied:
            touched = [(part.start, part[-1]) for part in _touched(later, first, last)]
            for part in without(range(first, last + 1), touched):
                source_points = range(there + part.start - first, there + part.stop - first)
                found.append((Origin(part, entry.source, source_points), entry.attempt))
        own = [(first, last) for first, last, _ in entry.copied]
        for first, last in own if entry.is_adopted else entry.touched:
            later.fill(first, last, STORED)
    return sorted(found, key=lambda each: each[0].points.start)


def _touched(later: Points, first: int, last: int) -> Iterable[range]:
    return columns.ranges(point for point in range(first, last + 1) if later[point])
