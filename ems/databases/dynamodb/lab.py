"""The lab's rows in DynamoDB: experimenters, projects, funding, clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ems.databases import Project, R, Record, rules
from ems.databases.dynamodb.errors import Changed
from ems.databases.dynamodb.items import Item, item_of, values_of
from ems.databases.dynamodb.registry import Registry
from ems.databases.tables import TABLE_OF


class Lab:
    """Reads and writes the lab's rows for `DynamodbDatabase`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def upsert(self, record: Record) -> None:
        """As `Database.upsert`."""
        table = TABLE_OF[type(record)].name
        item = {"pk": {"S": table}, "sk": {"S": record.id}} | item_of(asdict(record))
        if not isinstance(record, Project):
            self._registry.checked.call("put_item", TableName=self._registry.service.registry, Item=item)
        else:
            self._upsert_project(record, item)

    def _upsert_project(self, project: Project, item: Item) -> None:
        for _ in self._registry.service.tries():
            parents = {found["id"]: found.get("parent") for found in self._registry.collection("project")}
            rules.check_parent(project, parents)
            try:
                self._registry.transact([self._registry.put(item), *self._still(project.parent, parents)])
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
            checks.append({"ConditionCheck": self._registry.at("project", above) | condition})
            above = parent
        return checks

    def missing(self, experimenter: str, project: str, funding: str) -> list[tuple[str, str, list[str]]]:
        """As `Database.missing`."""
        wanted = {"experimenter": experimenter, "project": project, "funding": funding}
        keys = [{"pk": {"S": table}, "sk": {"S": id}} for table, id in wanted.items()]
        there = {item["pk"]["S"] for item in self._registry.checked.get_many(self._registry.service.registry, keys)}
        absent = [table for table in wanted if table not in there]
        return [(table, wanted[table], [row["id"] for row in self._registry.collection(table)]) for table in absent]

    def record(self, kind: type[R], id: str) -> R | None:
        """As `Database.record`."""
        item = self._registry.checked.get(TABLE_OF[kind].name, id)
        if item is None:
            return None
        values = values_of(item)
        return kind(**{name: value for name, value in values.items() if name not in {"pk", "sk"}})
