"""Of each stack, which of its experiments comes first, in an item of its own: views of many stacks read these alone.

It is written in the transaction that registers an experiment, or notes that its stack holds or has released it, on
condition that nobody else has written it since it was read: so it is what the experiments' items say. Labs of version 1
have none until `create` has made them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ems.databases.dynamodb.items import Item, attribute, item_of, values_of
from ems.databases.dynamodb.registry import Registry
from ems.databases.states import Row, Values

HEADS = "newest"
PLACED_BY = ("id", "stack", "registered_at", "destroyed_at")


class Heads:
    """Reads and writes the items `newest`, STACK of the registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def ids(self, stacks: Collection[str] | None) -> list[str]:
        """The first experiment of each of these stacks, or of all, in no order."""
        if stacks is None:
            return [head["id"] for head in self._registry.collection(HEADS)]
        keys = [{"pk": {"S": HEADS}, "sk": {"S": stack}} for stack in dict.fromkeys(stacks)]
        service = self._registry.checked
        return [values_of(item)["id"] for item in service.get_many(service.registry, keys)]

    def changes(self, before: Row | None, after: Row) -> Iterator[dict[str, Any]]:
        """What a transaction writes besides that makes of an experiment's row `before` the row `after`."""
        old = None if before is None else _place(before)
        if old != _place(after):
            for stack in {after["stack"]} if before is None else {before["stack"], after["stack"]}:
                yield self._change(stack, after)

    def _change(self, stack: str, after: Row) -> dict[str, Any]:
        item = self._registry.checked.get(HEADS, stack)
        head = None if item is None else {"destroyed_at": None} | values_of(item)
        first, revision = self._first(stack, head, after), head["revision"] if head else 0
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if head:
            was = {":was": attribute(revision)}
            condition = {"ConditionExpression": "revision = :was", "ExpressionAttributeValues": was}
        if first is None:
            return {"Delete": self._registry.at(HEADS, stack) | condition}
        return self._registry.put(_item(first, revision + 1), **condition)

    def _first(self, stack: str, head: Values | None, after: Row) -> Row | None:
        """Unless it is the head itself that moves, the others need not be looked at."""
        mine = [after] if after["stack"] == stack else []
        if head and head["id"] != after["id"]:
            return min([head, *mine], key=order)
        listed = self._registry.collection("experiments", f"{stack}/")
        ids = {entry["experiment_id"] for entry in listed} - {after["id"]}
        others = [row for row in self._registry.rows(ids, PLACED_BY) if row["stack"] == stack]
        return min([*others, *mine], key=order, default=None)

    def write_all(self) -> None:
        """Find all of them out anew, from the experiments' items."""
        ids = (entry["experiment_id"] for entry in self._registry.collection("experiments"))
        first: dict[str, Row] = {}
        for row in sorted(self._registry.rows(ids, PLACED_BY), key=order):
            first.setdefault(row["stack"], row)
        self._registry.put_many(_item(row, 0) for row in first.values())


def order(row: Row) -> tuple[bool, float, str]:
    """For sorting, as `Database.experiments` does."""
    return row["destroyed_at"] is not None, -row["registered_at"].timestamp(), row["id"]


def _place(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in PLACED_BY)


def _item(row: Row, revision: int) -> Item:
    place = {name: row[name] for name in PLACED_BY}
    return item_of({"pk": HEADS, "sk": row["stack"], **place, "revision": revision})
