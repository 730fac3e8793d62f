"""DynamoDB's tables, what roles need, and looking whether all is well."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.databases import MAY, Checkup
from ems.databases.dynamodb.errors import Changed
from ems.databases.dynamodb.heads import Heads
from ems.databases.dynamodb.items import Item
from ems.databases.dynamodb.registry import Registry
from ems.databases.dynamodb.service import session

ROUND_TRIPS = 7
WITH_HEADS = 2  # the version since which there are those items
READ = ["DescribeTable", "GetItem", "BatchGetItem", "Query", "Scan", "PartiQLSelect"]
WRITE = ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "ConditionCheckItem"]
MAKE = ["CreateTable", "UpdateTable"]
ROLES = {"reader": READ, "agent": READ + WRITE, "owner": READ + WRITE + MAKE}
POLICY = """
# What a person or machine needs, as an IAM policy: {role}
# aws iam create-policy --policy-name {prefix}-{role} --policy-document '{document}'
"""


def rights(role: str, region: str, prefix: str) -> dict[str, Any]:
    """Of one of ROLES, as a statement of a policy."""
    actions = [f"dynamodb:{action}" for action in ROLES[role]]
    return {"Effect": "Allow", "Action": actions, "Resource": f"arn:*:dynamodb:{region}:*:table/{prefix}-re*"}


class Setup:
    """Makes the tables, says how others can make them, and looks whether all is well."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._service = registry.service

    # Making

    def create(self) -> None:
        """As `Database.create`."""
        for table in self._tables():
            self._make(table)
        found = self._registry.found_version()
        if found is not None and found < WITH_HEADS:
            Heads(Registry(self._service, found)).write_all()
        item = self._version_item()
        known = {":known": {"N": str(self._registry.version)}}
        condition = "attribute_not_exists(pk) OR version <= :known"
        put = {"Item": item, "ConditionExpression": condition, "ExpressionAttributeValues": known}
        try:
            self._service.call("put_item", TableName=self._service.registry, **put)
        except Changed as error:
            raise self._registry.other_version(self._registry.found_version() or 0) from error

    def _version_item(self) -> Item:
        return {"pk": {"S": "version"}, "sk": {"S": "schema"}, "version": {"N": str(self._registry.version)}}

    def _tables(self) -> Iterator[dict[str, Any]]:
        names = {self._service.registry: ("pk", "sk"), self._service.results: ("experiment_id", "rowid")}
        for table, keys in names.items():
            yield {
                "TableName": table,
                "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key in keys],
                "KeySchema": [{"AttributeName": n, "KeyType": t} for n, t in zip(keys, ("HASH", "RANGE"), strict=True)],
                "BillingMode": "PAY_PER_REQUEST",
                "DeletionProtectionEnabled": True,
            }

    def _make(self, table: dict[str, Any]) -> None:
        found = self._described(table["TableName"])
        if found is None:
            answer = self._service.call_unless("ResourceInUseException", "create_table", **table) or {}
            found = answer.get("TableDescription", {})
        for _ in self._service.tries():
            if found and found.get("TableStatus") in {"ACTIVE", "UPDATING"}:
                return
            found = self._described(table["TableName"])

    def _described(self, table: str) -> dict[str, Any] | None:
        answer = self._service.call_unless("ResourceNotFoundException", "describe_table", TableName=table)
        return answer and answer["Table"]

    def script(self) -> str:
        """As `Database.setup_script`."""
        region = self._service.region
        made = "".join(
            f"aws dynamodb create-table --region {region} --cli-input-json '{json.dumps(table)}'\n"
            f"aws dynamodb wait table-exists --region {region} --table-name {table['TableName']}\n"
            for table in self._tables()
        )
        item = json.dumps(
            {"pk": {"S": "version"}, "sk": {"S": "schema"}, "version": {"N": str(self._registry.version)}}
        )
        version = f"aws dynamodb put-item --region {region} --table-name {self._service.registry} --item '{item}'\n"
        return made + version + "".join(map(self._policy, ROLES))

    def _policy(self, role: str) -> str:
        prefix = self._service.registry.removesuffix("-registry")
        document = json.dumps({"Version": "2012-10-17", "Statement": [rights(role, self._service.region, prefix)]})
        return POLICY.format(role=role, prefix=prefix, document=document)

    # Looking

    def check(self) -> Checkup:
        """As `Database.check`."""
        described = [self._described(table["TableName"]) for table in self._tables()]
        found = self._registry.found_version() if all(described) else None
        latency_s = self._latency_s()
        return Checkup(
            service=f"DynamoDB at {os.environ.get('AWS_ENDPOINT_URL_DYNAMODB') or self._service.region}",
            role=_role(),
            may=tuple(self._may()) if found else (),
            tables_version=found,
            needed_version=self._registry.version,
            latency_s=latency_s,
            clock_ahead_s=self._service.clock.ahead_s,
            faults=tuple(self._faults(found, described)),
        )

    def _latency_s(self) -> float:
        took = []
        for _ in range(ROUND_TRIPS):
            start = time.perf_counter()
            self._described(self._service.registry)
            took.append(time.perf_counter() - start)
        return statistics.median(took)

    def _may(self) -> Iterator[str]:
        """Writes on a condition that never holds, and makes a table that is there: they change nothing."""
        never = {"ConditionExpression": "attribute_exists(pk) AND attribute_not_exists(pk)"}
        tried = self._registry.at("version", "schema") | never
        yield MAY[0]
        if self._is_let("delete_item", tried):
            yield from MAY[1:3]
        if self._is_let("create_table", next(self._tables())):
            yield MAY[3]

    def _is_let(self, operation: str, parameters: dict[str, Any]) -> bool:
        try:
            self._service.call_unless("ResourceInUseException", operation, **parameters)
        except Changed:
            return True
        except DatabaseUnavailable:
            raise
        except DatabaseError:
            return False
        return True

    def _faults(self, found: int | None, described: Sequence[dict[str, Any] | None]) -> Iterator[str]:
        for wanted, table in zip(self._tables(), described, strict=True):
            name = wanted["TableName"]
            if table is None:
                yield f"there is no table {name}: ems up lab"
            elif [key["AttributeName"] for key in table["KeySchema"]] != [
                key["AttributeName"] for key in wanted["KeySchema"]
            ]:
                yield f"table {name} was not made by EMS: take another prefix in ems:database"
        if found is not None and found != self._registry.version:
            yield str(self._registry.other_version(found))


def _role() -> str:
    """By which credentials EMS comes in; never a secret one."""
    credentials = session().get_credentials()
    return f"{credentials.access_key} (by {credentials.method})" if credentials else ""
