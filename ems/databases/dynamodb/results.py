"""Storing results in DynamoDB: the table `PREFIX-results`, keyed by `experiment_id` (`ID/0` … `ID/7`) and `rowid`.

A batch gets a number, which stands in the keys of all it writes. First comes its entry in the log, then marks and rows,
many at once; nothing of it counts yet. Then one update of the experiment's item, on condition that the claim holds and
that no other batch came between, says that the batch counts. So a batch counts as a whole or not at all, replaced
points change with it, and what a killed run left is never seen. What does not count any more is deleted when a run
begins and ends.
"""

from __future__ import annotations

import json
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any

from ems.databases import Claim, Condition, Origin, PointState, columns, rules
from ems.databases.dynamodb import columns as dynamodb_columns
from ems.databases.dynamodb import log, reading
from ems.databases.dynamodb.errors import Changed
from ems.databases.dynamodb.items import (
    KEY_LENGTH,
    LOG,
    MARKS,
    SHARDS,
    Item,
    check_values,
    item_of,
    key_bounds,
    parsed,
    partition,
    point_bounds,
    row_items,
    sort_key,
)
from ems.databases.dynamodb.registry import Registry, collection_of
from ems.databases.dynamodb.service import Request, Service, key_range
from ems.databases.points import chunks, moved, only, origin_spans, touched
from ems.databases.states import Row
from ems.spool.batch import Batch, Mark, jsonable

Copied = Iterable[log.Copy]

CLEANING_S = 5.0  # at the beginning and the end of a run
CLEANED = 50  # batches at once


@dataclass(frozen=True)
class Writer:
    """Who stores batches that run `attempt` computed; without a `claim`, a copy of a whole lab."""

    experiment_id: str
    attempt: int
    claim: Claim | None = None

    @property
    def condition(self) -> str:
        """What must hold of the experiment's item, as DynamoDB's expression."""
        return "attempt = :attempt AND run_state = :running" if self.claim else "attribute_exists(pk)"

    @property
    def values(self) -> dict[str, Any]:
        """The values that `condition` refers to."""
        return {":attempt": {"N": str(self.claim.attempt)}, ":running": {"S": "running"}} if self.claim else {}

    @property
    def is_late(self) -> bool:
        """Whether an earlier run than the claim's computed what is stored."""
        return self.claim is not None and self.attempt < self.claim.attempt

    def check(self, row: Row) -> None:
        """FencedOut if the claim does not hold."""
        if self.claim:
            rules.check_fence(row, self.claim)


def of_claim(claim: Claim, attempt: int | None = None) -> Writer:
    """The run that holds the claim, as a writer of what it computed, or an earlier run `attempt`."""
    return Writer(claim.experiment_id, claim.attempt if attempt is None else attempt, claim)


class Results:
    """`pairs_at_once`: of points that are copied."""

    def __init__(self, registry: Registry, pairs_at_once: int) -> None:
        self._registry = registry
        self._service = registry.service
        self._pairs_at_once = pairs_at_once
        self._storing = threading.Lock()
        self._known: tuple[str, int, log.Points] = ("", 0, log.Points())

    # Storing

    def store(self, claim: Claim, batch: Batch, attempt: int | None = None) -> None:
        """As `Database.store`."""
        self.write(of_claim(claim, attempt), batch)

    def write(self, writer: Writer, batch: Batch, source: str = "", copied: Copied = ()) -> Row:
        """The experiment's row as it was just before."""
        columns.check_batch(batch)
        with self._storing:
            for _ in self._service.tries():
                row = self._numbered(writer)
                if row is not None and self._stored(writer, row, batch, source, list(copied)):
                    return row
        raise AssertionError("tries end with an error")

    def _numbered(self, writer: Writer) -> Row | None:
        """The experiment's row with a number of our own for a batch, in `batches`; None: ask again."""
        update = self._registry.at(collection_of(writer.experiment_id), "experiment") | {
            "UpdateExpression": "ADD batches :one, revision :one",
            "ConditionExpression": writer.condition,
            "ExpressionAttributeValues": {**writer.values, ":one": {"N": "1"}},
            "ReturnValues": "ALL_NEW",
        }
        try:
            return self._registry.row_of(self._registry.checked.call("update_item", **update)["Attributes"])
        except Changed:
            writer.check(self._registry.row(writer.experiment_id))
            return None

    def _stored(self, writer: Writer, row: Row, batch: Batch, source: str, copied: list[log.Copy]) -> bool:
        """False if another batch came between, so that this one needs another number."""
        number = row["batches"]
        if writer.is_late:
            batch = self._wanted(row, writer.attempt, batch)
        check_values(row["results_table"], batch)
        points = self._points_of(row)
        fitting = dynamodb_columns.fitted(self._service, row["results_table"], batch)
        plan = _Plan(self._service, row, points, batch)
        entry = log.Entry(number, writer.attempt, plan.spans, source, copied, is_adopted=writer.claim is None)
        self._service.write(self._service.results, map(_put, entry.items(row["id"])))
        mark_items = (_mark_item(writer, number, mark) for mark in batch.marks)
        items = row_items(row["id"], number, Batch(batch.points, batch.rows, fitting))
        self._service.write(self._service.results, map(_put, chain(mark_items, items)))
        if not self._commit(writer, row, plan):
            return False
        entry.apply(points)
        self._known = (row["id"], number, points)
        return True

    def _wanted(self, row: Row, attempt: int, batch: Batch) -> Batch:
        """What the batch has of points of which there is nothing, or which failed in a run before `attempt`."""
        known = log.known(self._service, row, attempt)
        return only(batch, {point for point in touched(batch) if known[point] in {log.ABSENT, log.DUE}})

    def _points_of(self, row: Row) -> log.Points:
        id, last, points = self._known
        return points if (id, last) == (row["id"], row["last_batch"]) else log.known(self._service, row)

    def _commit(self, writer: Writer, row: Row, plan: _Plan) -> bool:
        number, last = row["batches"], row["last_batch"]
        void = frozenset(range(last + 1, number))
        unclean = void | ({number} if plan.supersedes else frozenset())
        adding = {":one": {"N": "1"}, ":grown": {"N": str(plan.grown if writer.claim else 0)}}
        adding |= item_of({name: found for name, found in ((":void", void), (":unclean", unclean)) if found})
        names = {":one": "revision", ":grown": "rows_stored", ":void": "void_batches", ":unclean": "unclean_batches"}
        update = self._registry.at(collection_of(row["id"]), "experiment") | {
            "UpdateExpression": "SET last_batch = :new ADD " + ", ".join(f"{names[name]} {name}" for name in adding),
            "ConditionExpression": f"{writer.condition} AND last_batch = :last",
            "ExpressionAttributeValues": {**writer.values, **adding, **item_of({":new": number, ":last": last})},
        }
        try:
            self._service.call("update_item", **update)
        except Changed:
            return self._is_committed(writer, number)
        return True

    def _is_committed(self, writer: Writer, number: int) -> bool:
        """Whether the answer was lost, and its repetition refused; FencedOut if the claim does not hold."""
        row = self._registry.row(writer.experiment_id)
        if log.counts(row, number):
            return True
        writer.check(row)
        return False

    # Points

    def points(self, experiment_id: str) -> Iterator[tuple[PointState, range]]:
        """As `Database.points`."""
        row = self._registry.row(experiment_id)
        points = log.known(self._service, row, row["wanted_attempt"])
        for code, found in chain(points.runs(log.STORED), points.runs(log.EMPTY, log.FAILED, log.DUE)):
            state = log.STATES[code]
            assert state
            yield state, found

    def failures(self, experiment_id: str, last: int | None = None) -> Iterator[Mark]:
        """As `Database.failures`."""
        found = reading.marks(self._service, self._registry.row(experiment_id), ascending=last is None)
        failed = (mark for mark, _ in found if mark.state == "failed")
        yield from failed if last is None else reversed(list(islice(failed, last)))

    def copy_points(self, claim: Claim, source: str, pairs: Iterable[tuple[int, int]]) -> int:
        """As `Database.copy_points`."""
        copied = 0
        for to in chunks(pairs, self._pairs_at_once):
            for found in self._found(self._registry.row(source), sorted(to)):
                there = {*found.points, *(mark.point for mark in found.marks)}
                copies = origin_spans((point, to[point]) for point in there)
                self.write(of_claim(claim), moved(found, to), source, copies)
                copied += len(there)
        return copied

    def _found(self, row: Row, points: Sequence[int]) -> Iterator[Batch]:
        """What there is of these points, in batches of whole points."""
        layout = dynamodb_columns.find(self._service, row["results_table"])
        yield from reading.rows_of(self._service, row, layout, points)
        wanted = set(points)
        empties = (
            mark
            for span in reading.covering(columns.spans(points))
            for mark, _ in reading.marks(self._service, row, span)
            if mark.state == "empty" and mark.point in wanted
        )
        if found := tuple(empties):
            yield Batch(array("q"), array("q"), (), marks=found)

    def origins(self, experiment_id: str) -> Iterator[Origin]:
        """As `Database.origins`."""
        row = self._registry.row(experiment_id)
        yield from (origin for origin, _ in log.origins(self._service, row))

    def read(
        self,
        experiment_id: str,
        columns: Sequence[str] | None = None,
        where: Sequence[Condition] = (),
        chunk_rows: int = 10_000,
    ) -> Iterator[Batch]:
        """As `Database.results`."""
        row = self._registry.row(experiment_id)
        layout = dynamodb_columns.find(self._service, row["results_table"])
        if layout.revision:
            yield from reading.read(self._service, row, layout, columns, where, chunk_rows)

    # Cleaning

    def clean(self, row: Row) -> None:
        """Delete what does not count any more, for some seconds at most: the rest stays for the next time."""
        until = time.monotonic() + CLEANING_S
        remaining = sorted(row["unclean_batches"])
        floors = reading.Floors(self._service, row)
        while remaining:
            numbers, remaining = remaining[:CLEANED], remaining[CLEANED:]
            self._service.write(self._service.results, _until(until, self._leftovers(row, numbers, floors)))
            if time.monotonic() > until:
                return
            update = self._registry.at(collection_of(row["id"]), "experiment") | {
                "UpdateExpression": "DELETE unclean_batches :numbers ADD revision :one",
                "ExpressionAttributeValues": {":numbers": {"NS": list(map(str, numbers))}, ":one": {"N": "1"}},
            }
            self._service.call("update_item", **update)

    def _leftovers(self, row: Row, numbers: Sequence[int], floors: reading.Floors) -> Iterator[Request]:
        """What does not count of the points that these batches replaced, or, if they are void, wrote."""
        of_rows: list[log.Span] = []
        of_marks: list[log.Span] = []
        found = log.entries(self._service, row, numbers[0], numbers[-1])
        for entry in (entry for entry in found if entry.number in numbers):
            void = entry.touched if entry.number in row["void_batches"] else []
            of_rows += [*void, *entry.spans.get("replaced", ()), *entry.spans.get("rewritten", ())]
            of_marks += [*void, *entry.spans.get("remarked", ())]
        names = reading.partitions(row["id"])
        wanted = [(name, of_rows) for name in names[:SHARDS]] + [(names[SHARDS], of_marks)]
        for name, spans in wanted:
            for span in reading.covering(spans):
                yield from map(_delete, self._dead(row, name, span, floors))
        for number in row["void_batches"].intersection(numbers):
            parts = key_range(partition(row["id"], LOG), f"{number:010d}", f"{number:010d}~")
            yield from map(_delete, self._service.query(self._service.results, **parts))

    def _dead(self, row: Row, name: str, span: log.Span, floors: reading.Floors) -> Iterator[Item]:
        """Items of a partition that do not count; those of batches that came later than `row` was read stay."""
        bounds = key_range(name, *point_bounds(*span)) | {"ProjectionExpression": "experiment_id, rowid"}
        items = self._service.query(self._service.results, **bounds)
        for _, same in groupby(items, key=lambda item: item["rowid"]["S"][:39]):
            found = list(same)
            living = {item["rowid"]["S"][:KEY_LENGTH] for item in reading.counting(found, floors)}
            dead = (item for item in found if item["rowid"]["S"][:KEY_LENGTH] not in living)
            yield from (item for item in dead if parsed(item["rowid"]["S"])[2] <= row["last_batch"])


class _Plan:
    """What a batch does to what is there: the spans of its entry, and by how many rows the experiment grows."""

    def __init__(self, service: Service, row: Row, points: log.Points, batch: Batch) -> None:
        self._service, self._row, self._points = service, row, points
        keys = set(zip(batch.points, batch.rows, strict=True))
        stored = {point for point, _ in keys}
        marked = {mark.state: {m.point for m in batch.marks if m.state == mark.state} for mark in batch.marks}
        gone = {*batch.replaces, *(mark.point for mark in batch.marks)}
        replaced = {point for point in gone if points[point] == log.STORED}
        remarked = {point for point in gone | stored if points[point] in {log.EMPTY, log.FAILED}}
        rewritten = self._overlap(keys, {point for point in stored - gone if points[point] == log.STORED})
        self.grown = len(keys) - self._rows(replaced) - len(rewritten)
        self.supersedes = bool(replaced or remarked or rewritten)
        cleared = (replaced | remarked) - stored.union(*marked.values())
        earlier = {"replaced": replaced, "remarked": remarked, "rewritten": {point for point, _ in rewritten}}
        found = {"stored": stored, **marked, "cleared": cleared, **earlier}
        self.spans = {name: spans for name, each in found.items() if (spans := columns.spans(each))}

    def _overlap(self, keys: set[tuple[int, int]], points: set[int]) -> set[tuple[int, int]]:
        """Those of the keys that are stored already, in points that stay."""
        found: set[tuple[int, int]] = set()
        ordered = sorted(key for key in keys if key[0] in points)
        for first, last in reading.covering(columns.spans(points)):
            begin, end = bisect_left(ordered, (first, 0)), bisect_left(ordered, (last + 1, 0))
            found.update(keys.intersection(self._keys(key_bounds(ordered[begin], ordered[end - 1]))))
        return {key for key in found if key[0] in points}

    def _rows(self, points: set[int]) -> int:
        """How many rows these points have."""
        if len(points) == sum(len(found) for _, found in self._points.runs(log.STORED)):
            return int(self._row["rows_stored"])
        spans = reading.covering(columns.spans(points))
        return sum(key[0] in points for span in spans for key in self._keys(point_bounds(*span)))

    def _keys(self, bounds: tuple[str, str]) -> Iterator[tuple[int, int]]:
        floors = reading.Floors(self._service, self._row)
        return reading.keys(self._service, self._row, floors, bounds)


def _put(item: Item) -> Request:
    return {"PutRequest": {"Item": item}}


def _delete(item: Item) -> Request:
    return {"DeleteRequest": {"Key": {name: item[name] for name in ("experiment_id", "rowid")}}}


def _until(end: float, requests: Iterable[Request]) -> Iterator[Request]:
    for request in requests:
        if time.monotonic() > end:
            return
        yield request


def _mark_item(writer: Writer, number: int, mark: Mark) -> Item:
    key = {"experiment_id": partition(writer.experiment_id, MARKS), "rowid": sort_key(mark.point, 0, number)}
    parameters = json.dumps(jsonable(mark.parameters))
    values = {"point": mark.point, "state": mark.state, "parameters": parameters, "attempt": writer.attempt}
    return item_of(key | values | {"error": mark.error})
