"""The table `PREFIX-registry` in DynamoDB, keyed by `pk` and `sk`, and which version its items are of.

pk                sk                what
version           schema            the tables' `version`
experimenter, …   ID                a row of `ems:lab`
experiment/ID     experiment        the experiment with its newest run, and which batches of results count
experiment/ID     run/ATTEMPT       each run, with what it cost; of the newest, the experiment knows more
experiment/ID     round/NUMBER/PART  the points of each round that was proposed, as JSON in parts
experiment/ID     output/POINT/NAME  each file of EMS_OUTPUT_DIR
experiments       STACK/ID          a list of all, by stack
newest            STACK             which of its experiments comes first
job/DIGEST        ID                a list of those that can reuse one another's points
table             NAME              a results table's columns
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ems.base.errors import DatabaseError
from ems.databases import tables
from ems.databases.dynamodb.errors import no_tables
from ems.databases.dynamodb.items import Item, attribute, values_of
from ems.databases.dynamodb.service import Service
from ems.databases.states import RUN, Row, Values

NOTHING: tuple[Any, ...] = (None, frozenset())  # no attribute: a set cannot be empty
NO_BATCHES: dict[str, frozenset[int]] = {"void_batches": frozenset(), "unclean_batches": frozenset()}
EMPTY: Values = dict.fromkeys((*tables.experiment.c.keys(), *RUN, "run_state")) | NO_BATCHES


class Registry:
    """Reads and writes the registry's items. `version`: of the tables, as this EMS needs them."""

    def __init__(self, service: Service, version: int) -> None:
        self.service = service
        self.version = version
        self._is_current = False

    @property
    def checked(self) -> Service:
        """The service, with tables of the right version."""
        if not self._is_current:
            found = self.found_version()
            if found is None:
                raise no_tables(self.service.name)
            if found != self.version:
                raise self.other_version(found)
            self._is_current = True
        return self.service

    def found_version(self) -> int | None:
        """The version that the tables note; None if they note none. DatabaseError if there are no tables."""
        item = self.service.get("version", "schema")
        return None if item is None else int(item["version"]["N"])

    def other_version(self, found: int) -> DatabaseError:
        """The error for tables of version `found`, which this EMS does not use."""
        name = self.service.name
        if found > self.version:
            return DatabaseError(
                f"{name} has tables of version {found}; this EMS knows versions up to {self.version}.",
                "Upgrade EMS: pip install --upgrade ems-experiments",
            )
        return DatabaseError(
            f"{name} has tables of version {found}; this EMS needs version {self.version}.",
            "Bring them up to date: ems up lab",
        )

    # Items

    def find(self, experiment_id: str) -> Values | None:
        """The experiment's row with its newest run and the time; None if there is none."""
        item = self.checked.get(collection_of(experiment_id), "experiment")
        return None if item is None else self.row_of(item)

    def row(self, experiment_id: str) -> Values:
        """As `find`; DatabaseError if there is no such experiment."""
        row = self.find(experiment_id)
        if row is None:
            raise DatabaseError(f"no experiment {experiment_id!r} in {self.service.name}.", "See: ems status")
        return row

    def row_of(self, item: Item) -> Values:
        """An experiment's item as a row: None where it has no attribute, and the time as `now`."""
        return EMPTY | values_of(item) | {"now": self.service.clock.now()}

    def rows(self, ids: Iterable[str], names: Sequence[str] = ()) -> list[Values]:
        """The rows of those experiments that are there, each once, in no order; but for `names`, if any, all None."""
        keys = [{"pk": {"S": collection_of(id)}, "sk": {"S": "experiment"}} for id in dict.fromkeys(ids)]
        return [self.row_of(item) for item in self.service.get_many(self.service.registry, keys, names)]

    def collection(self, name: str, beginning: str = "") -> list[Values]:
        """In order of keys."""
        return list(self.stream(name, beginning))

    def stream(self, name: str, beginning: str = "") -> Iterator[Values]:
        """As `collection`, read as it goes."""
        condition, values = "pk = :name", {":name": {"S": name}}
        if beginning:
            condition, values = (
                f"{condition} AND begins_with(sk, :beginning)",
                values | {":beginning": {"S": beginning}},
            )
        parameters = {"KeyConditionExpression": condition, "ExpressionAttributeValues": values}
        return map(values_of, self.checked.query(self.service.registry, **parameters))

    def write(self, row: Row, values: Values, others: Sequence[dict[str, Any]]) -> None:
        """Into an experiment's item, and `others` in one transaction; Changed if it is not the one that was read."""
        expression = assignments(values | {"revision": row["revision"] + 1})
        expression["ExpressionAttributeValues"][":was"] = attribute(row["revision"])
        key = self.at(collection_of(row["id"]), "experiment")
        update = key | expression | {"ConditionExpression": "revision = :was"}
        if others:
            self.transact([{"Update": update}, *others])
        else:
            self.service.call("update_item", **update)

    def at(self, collection: str, key: str) -> dict[str, Any]:
        """What names an item in a call's parameters."""
        return {"TableName": self.service.registry, "Key": {"pk": {"S": collection}, "sk": {"S": key}}}

    def put(self, item: Item, **condition: Any) -> dict[str, Any]:
        """The part of a transaction that writes an item; `condition`: further parameters of DynamoDB's Put."""
        return {"Put": {"TableName": self.service.registry, "Item": item, **condition}}

    def put_many(self, items: Iterable[Item]) -> None:
        """Many at once, without a condition; not in a transaction."""
        self.checked.write(self.service.registry, ({"PutRequest": {"Item": item}} for item in items))

    def transact(self, items: list[dict[str, Any]]) -> None:
        """All of these writes or none; Changed if a condition does not hold."""
        self.service.call("transact_write_items", TransactItems=items)


def assignments(values: Values) -> dict[str, Any]:
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
    """The `pk` of an experiment's item and those of its runs."""
    return f"experiment/{experiment_id}"
