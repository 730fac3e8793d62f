"""The lab's rows and experiments' items in DynamoDB: the table `PREFIX-registry`, keyed by `pk` and `sk`.

    pk                sk                what
    version           schema            the tables' `version`
    experimenter, …   ID                a row of `ems:lab`
    experiment/ID     experiment        the experiment with its newest run, and which batches of results count
    experiment/ID     run/ATTEMPT       each run, with what it cost; of the newest, the experiment knows more
    experiments       STACK/ID          a list of all, by stack
    job/DIGEST        ID                a list of those that can reuse one another's points
    table             NAME              a results table's columns

Every change of an experiment reads its item, decides in Python (`rules`), and writes on condition that the item's
`revision` is still the one that was read; else it decides anew.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ems.databases import Database, Project, R, Record, rules, tables
from ems.databases.dynamodb.errors import Changed
from ems.databases.dynamodb.items import Item, attribute, item_of, values_of
from ems.databases.dynamodb.service import Service
from ems.databases.tables import TABLE_OF
from ems.errors import DatabaseError

Row = dict[str, Any]

RUN = ("agent", "claimed_at", "heartbeat_at", "lease_until", "platform")
NOTHING: tuple[Any, ...] = (None, frozenset())  # no attribute: a set cannot be empty
NO_BATCHES: dict[str, frozenset[int]] = {"void_batches": frozenset(), "unclean_batches": frozenset()}
EMPTY: Row = dict.fromkeys((*tables.experiment.c.keys(), *RUN, "run_state")) | NO_BATCHES


@dataclass(frozen=True)
class Change:
    """What is written into an experiment's item, and other items that are written with it."""

    values: Row
    puts: list[Item] = field(default_factory=list)


class DynamodbRegistry(Database):
    _service: Service

    @property
    @abstractmethod
    def _checked(self) -> Service:
        """The service, with tables of the right version."""

    # Experimenters, projects, funding, clusters

    def upsert(self, record: Record) -> None:
        table = TABLE_OF[type(record)].name
        item = {"pk": {"S": table}, "sk": {"S": record.id}} | item_of(asdict(record))
        if not isinstance(record, Project):
            self._checked.call("put_item", TableName=self._service.registry, Item=item)
        else:
            self._upsert_project(record, item)

    def _upsert_project(self, project: Project, item: Item) -> None:
        for _ in self._service.tries():
            parents = {found["id"]: found.get("parent") for found in self._collection("project")}
            rules.check_parent(project, parents)
            try:
                self._transact([self._put(item), *self._still(project.parent, parents)])
                return
            except Changed:
                continue

    def _still(self, above: str | None, parents: Mapping[str, str | None]) -> list[dict[str, Any]]:
        """Conditions that all projects from `above` on lie where they do."""
        checks = []
        while above is not None:
            parent = parents[above]
            condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(parent)"}
            if parent is not None:
                condition = {"ConditionExpression": "parent = :parent"}
                condition |= {"ExpressionAttributeValues": {":parent": {"S": parent}}}
            checks.append({"ConditionCheck": self._at("project", above) | condition})
            above = parent
        return checks

    def missing(self, experimenter: str, project: str, funding: str) -> list[tuple[str, str, list[str]]]:
        wanted = {"experimenter": experimenter, "project": project, "funding": funding}
        keys = [{"pk": {"S": table}, "sk": {"S": id}} for table, id in wanted.items()]
        there = {item["pk"]["S"] for item in self._checked.get_many(self._service.registry, keys)}
        absent = [table for table in wanted if table not in there]
        return [(table, wanted[table], [row["id"] for row in self._collection(table)]) for table in absent]

    def record(self, kind: type[R], id: str) -> R | None:
        item = self._checked.get(TABLE_OF[kind].name, id)
        if item is None:
            return None
        values = values_of(item)
        return kind(**{name: value for name, value in values.items() if name not in {"pk", "sk"}})

    # Items

    def _find(self, experiment_id: str) -> Row | None:
        item = self._checked.get(collection_of(experiment_id), "experiment")
        return None if item is None else self._row_of(item)

    def _row(self, experiment_id: str) -> Row:
        row = self._find(experiment_id)
        if row is None:
            raise DatabaseError(f"no experiment {experiment_id!r} in {self._service.name}.", "See: ems status")
        return row

    def _row_of(self, item: Item) -> Row:
        return EMPTY | values_of(item) | {"now": self._service.clock.now()}

    def _rows(self, ids: Iterable[str]) -> list[Row]:
        keys = [{"pk": {"S": collection_of(id)}, "sk": {"S": "experiment"}} for id in dict.fromkeys(ids)]
        return [self._row_of(item) for item in self._service.get_many(self._service.registry, keys)]

    def _collection(self, name: str, beginning: str = "") -> list[Row]:
        """In order of keys."""
        condition, values = "pk = :name", {":name": {"S": name}}
        if beginning:
            condition, values = (
                f"{condition} AND begins_with(sk, :beginning)",
                values | {":beginning": {"S": beginning}},
            )
        parameters = {"KeyConditionExpression": condition, "ExpressionAttributeValues": values}
        return list(map(values_of, self._checked.query(self._service.registry, **parameters)))

    def _change(self, experiment_id: str, decide: Callable[[Row], Change | None]) -> tuple[Row, Change | None]:
        """The row after what `decide` made of it; it is asked again where somebody else wrote meanwhile."""
        for _ in self._service.tries():
            row = self._row(experiment_id)
            change = decide(row)
            if change is None:
                return row, None
            try:
                self._write(row, change)
            except Changed:
                continue
            return row | change.values | {"revision": row["revision"] + 1}, change
        raise AssertionError("tries end with an error")

    def _write(self, row: Row, change: Change) -> None:
        values = change.values | {"revision": row["revision"] + 1}
        expression = {**assignments(values), "ConditionExpression": "revision = :was"}
        expression["ExpressionAttributeValues"][":was"] = attribute(row["revision"])
        update = self._at(collection_of(row["id"]), "experiment") | expression
        if change.puts:
            self._transact([{"Update": update}, *map(self._put, change.puts)])
        else:
            self._service.call("update_item", **update)

    def _at(self, collection: str, key: str) -> dict[str, Any]:
        return {"TableName": self._service.registry, "Key": {"pk": {"S": collection}, "sk": {"S": key}}}

    def _put(self, item: Item, **condition: str) -> dict[str, Any]:
        return {"Put": {"TableName": self._service.registry, "Item": item, **condition}}

    def _transact(self, items: list[dict[str, Any]]) -> None:
        self._service.call("transact_write_items", TransactItems=items)


def assignments(values: Row) -> dict[str, Any]:
    """An update's parameters that set what has a value, and remove the rest."""
    names = {f"#{index}": name for index, name in enumerate(values)}
    present = [alias for alias, name in names.items() if values[name] not in NOTHING]
    gone = [alias for alias in names if alias not in present]
    expression = "SET " + ", ".join(f"{alias} = :{alias[1:]}" for alias in present)
    return {
        "UpdateExpression": expression + (f" REMOVE {', '.join(gone)}" if gone else ""),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {f":{alias[1:]}": attribute(values[names[alias]]) for alias in present},
    }


def collection_of(experiment_id: str) -> str:
    return f"experiment/{experiment_id}"
