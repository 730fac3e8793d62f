"""Experiments and runs in DynamoDB.

Every change of an experiment reads its item, decides in Python (`rules`), and writes on condition that the item's
`revision` is still the one that was read; else it decides anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from ems.databases import LONG, Experiment, Long, Output, Registration, Round, State, rules
from ems.databases.dynamodb.errors import Changed
from ems.databases.dynamodb.heads import Heads, order
from ems.databases.dynamodb.items import Item, item_of, values_of
from ems.databases.dynamodb.registry import EMPTY, Registry, assignments, collection_of
from ems.databases.outputs import outputs_of
from ems.databases.points import Span
from ems.databases.rounds import rounds_of
from ems.databases.rules import Change
from ems.databases.runs import Decide, Found, Rows
from ems.databases.states import RUN, Row, Values, experiment_of

OWN: Values = {"batches": 0, "last_batch": 0, "revision": 0}
"""What an experiment's item has besides the row: of batches and of writes."""
ROUND, OUTPUT = "round/", "output/"
MOST_POINT = 2**63 - 1
REUSE = ("tree", "environment_digest", "python", "job_digest")


class DynamodbRows(Rows):
    """`clean`: deletes some of what does not count any more, when a run has begun or ended."""

    def __init__(self, registry: Registry, clean: Callable[[Row], None]) -> None:
        self._registry = registry
        self._heads = Heads(registry)
        self._clean = clean

    def find(self, experiment_id: str) -> Row | None:
        return self._registry.find(experiment_id)

    def insert(self, registration: Registration) -> Row | None:
        row = EMPTY | rules.registered(registration, self._registry.service.clock.now()) | OWN
        kept = {name: value for name, value in row.items() if name != "now" and value != frozenset()}
        item = item_of({"pk": collection_of(registration.id), "sk": "experiment"} | kept)
        new = self._registry.put(item, ConditionExpression="attribute_not_exists(pk)")
        listed = [self._registry.put(entry) for entry in entries_of(row)]
        for _ in self._registry.service.tries():
            try:
                self._registry.transact([new, *listed, *self._heads.changes(None, row)])
                return row
            except Changed:
                if self.find(registration.id) is not None:
                    return None
        raise AssertionError("tries end with an error")

    def change(self, experiment_id: str, decide: Decide) -> tuple[Values, Change | None]:
        row, change = self._changed(experiment_id, decide)
        if change and (change.new_run or change.charge):
            self._clean(row)
        return row, change

    def _changed(self, experiment_id: str, decide: Decide) -> tuple[Values, Change | None]:
        for _ in self._registry.service.tries():
            row = self._registry.row(experiment_id)
            change = decide(
                Found(
                    row,
                    released_as=partial(self._released_as, experiment_id),
                    charged=partial(self._charged, experiment_id),
                    round=lambda number: next(iter(self._rounds(experiment_id, round_key(number))), None),
                )
            )
            if change is None:
                return row, None
            written = change.experiment | rules.newest_run(change) | _own(row, change)
            puts = [*map(self._registry.put, _items(row, change)), *self._recharges(row, **change.recharge)]
            try:
                self._registry.write(row, written, [*puts, *self._heads.changes(row, rules.after(row, change))])
            except Changed:
                continue
            return row | written | {"revision": row["revision"] + 1}, change
        raise AssertionError("tries end with an error")

    def _recharges(self, row: Row, attempt: int = 0, **values: Any) -> Iterator[dict[str, Any]]:
        if attempt:
            at = self._registry.at(collection_of(row["id"]), run_key(attempt))
            yield {"Update": {**at, **assignments(values), "ConditionExpression": "attribute_exists(pk)"}}

    def _charged(self, experiment_id: str, attempt: int) -> float | None:
        item = self._run(experiment_id, attempt)
        return float(item["usd"]["N"]) if "usd" in item else None

    def _run(self, experiment_id: str, attempt: int) -> Mapping[str, Any]:
        return self._registry.service.get(collection_of(experiment_id), run_key(attempt)) or {}

    def _released_as(self, experiment_id: str, attempt: int) -> State | None:
        item = self._run(experiment_id, attempt)
        return State(item["state"]["S"]) if "usd" in item else None

    def rounds(self, experiment_id: str) -> list[Round]:
        """As `Database.rounds`."""
        self._registry.row(experiment_id)
        return self._rounds(experiment_id, ROUND)

    def _rounds(self, experiment_id: str, beginning: str) -> list[Round]:
        return rounds_of(self._registry.collection(collection_of(experiment_id), beginning))

    def outputs(self, experiment_id: str, span: Span | None = None) -> Iterator[Output]:
        """As `Database.outputs`; of all points, or those from the first to the last of `span`."""
        service = self._registry.service
        self._registry.row(experiment_id)
        first, last = (f"{OUTPUT}{point:019d}/" for point in span or (0, MOST_POINT))
        keys = {":pk": {"S": collection_of(experiment_id)}, ":first": {"S": first}, ":last": {"S": f"{last}\U0010ffff"}}
        asked = {
            "KeyConditionExpression": "pk = :pk AND sk BETWEEN :first AND :last",
            "ExpressionAttributeValues": keys,
        }
        return outputs_of(map(values_of, service.query(service.registry, **asked)))

    # Many

    def of_stack(self, stack: str | None) -> list[Experiment]:
        """As `Database.experiments`."""
        listed = self._registry.collection("experiments", "" if stack is None else f"{stack}/")
        found = self._registry.rows([entry["experiment_id"] for entry in listed])
        mine = (row for row in found if stack is None or row["stack"] == stack)
        return [experiment_of(row) for row in sorted(mine, key=order)]

    def newest(self, stacks: Collection[str] | None, also: Collection[Long]) -> list[Experiment]:
        """As `Database.newest`."""
        left_out = {name: "" for name in LONG if name not in also}
        names = [name for name in EMPTY if name not in left_out]
        rows = self._registry.rows(self._heads.ids(stacks), names)
        return [experiment_of(row | left_out) for row in sorted(rows, key=order)]

    def reusable(self, registration: Registration) -> list[Experiment]:
        """As `Database.reusable`."""
        if not registration.job_digest:
            return []
        listed = self._registry.collection(f"job/{_reuse_digest(asdict(registration))}")
        others = {entry["experiment_id"] for entry in listed} - {registration.id}
        alike = (
            row
            for row in self._registry.rows(others)
            if row["attempt"] > 0 and all(row[name] == getattr(registration, name) for name in REUSE)
        )
        return [experiment_of(row) for row in sorted(alike, key=lambda row: order(row)[1:])]


def run_key(attempt: int) -> str:
    """The `sk` of a run's item; as text it sorts by attempt."""
    return f"run/{attempt:010d}"


def round_key(number: int, part: int | None = None) -> str:
    """The `sk` of a part of a round's points, or what those of all parts begin with."""
    return f"{ROUND}{number:010d}/" + ("" if part is None else f"{part:06d}")


def round_item(row: Row) -> Item:
    """The item of a row of `proposed`."""
    return item_of({"pk": collection_of(row["experiment_id"]), "sk": round_key(row["round"], row["part"]), **row})


def output_item(row: Row) -> Item:
    """The item of a row of `output`."""
    key = f"{OUTPUT}{row['point']:019d}/{row['name']}"
    return item_of({"pk": collection_of(row["experiment_id"]), "sk": key, **row})


def _reuse_digest(row: Row) -> str:
    return hashlib.sha256("\n".join(row[name] for name in REUSE).encode()).hexdigest()


def entries_of(row: Row) -> list[Item]:
    """In the lists of experiments."""
    entries = [("experiments", f"{row['stack']}/{row['id']}")]
    if row["job_digest"]:
        entries.append((f"job/{_reuse_digest(row)}", row["id"]))
    return [item_of({"pk": name, "sk": key, "experiment_id": row["id"]}) for name, key in entries]


# What a change means here besides


def _own(row: Row, change: Change) -> Values:
    """No batch that an earlier run left unfinished will count once a new run begins."""
    if not change.new_run:
        return {}
    unfinished = frozenset(range(row["last_batch"] + 1, row["batches"] + 1))
    voided = {name: row[name] | unfinished for name in ("void_batches", "unclean_batches")}
    return {"last_batch": row["batches"], **voided}


def _items(row: Row, change: Change) -> list[Item]:
    """Runs that begin, are described or end, and lists where the experiment belongs now. No leases."""
    items = []
    if change.run.keys() & {"state", "platform"}:
        cost = {name: change.charge[name] for name in ("funding", "hours", "usd", "basis") if name in change.charge}
        key = {"experiment_id": row["id"], "attempt": row["attempt"]}
        items.append(
            _run_item(
                {
                    **key,
                    **{name: row[name] for name in RUN},
                    "error": "",
                    "state": row["run_state"],
                    **change.run,
                    **cost,
                }
            )
        )
    if change.new_run:
        items.append(_run_item(change.new_run))
    items += [*map(round_item, change.proposed), *map(output_item, change.outputs)]
    after = rules.after(row, change)
    moved = any(row[name] != after[name] for name in ("stack", *REUSE))
    return items + (entries_of(after) if moved else [])


def _run_item(run: Row) -> Item:
    return item_of({"pk": collection_of(run["experiment_id"]), "sk": run_key(run["attempt"]), **run})
