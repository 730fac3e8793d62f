"""Calls of DynamoDB: patient while it throttles, its errors mapped, many at once, and a clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from itertools import islice
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader
from botocore.session import Session

from ems.base.backoff import Backoff
from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.databases.aws import THROTTLED
from ems.databases.dynamodb.errors import AT_ONCE, CHANGED, Changed, codes, explained
from ems.databases.dynamodb.items import Item

PATIENCE_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
AT_ONCE_CALLS = 8
MOST_WRITES, MOST_READS = 25, 100  # of one batch
CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"mode": "standard", "total_max_attempts": 3},  # broken connections and faults of the service
    max_pool_connections=AT_ONCE_CALLS + 4,
    parameter_validation=False,  # costs more than all else in writing rows
)

LOADER = Loader()  # reads botocore's descriptions of the service once a process

Request = dict[str, Any]  # of BatchWriteItem


def session() -> Session:
    """AWS's settings as they are now."""
    made = Session()
    made.register_component("data_loader", LOADER)
    return made


class Clock:
    """This machine's clock, unless the times in the service's answers prove it wrong.

    An answer's Date has whole seconds: it says between which bounds the service's clock is ahead, and each answer
    narrows them.
    """

    def __init__(self) -> None:
        self._bounds = (-float("inf"), float("inf"))

    def hear(self, date: str, sent: float, received: float) -> None:
        """Learn from an answer's Date; `sent` and `received`: when, in this machine's seconds since 1970."""
        there = parsedate_to_datetime(date).timestamp()
        low, high = there - received, there + 1 - sent
        least, most = max(low, self._bounds[0]), min(high, self._bounds[1])
        self._bounds = (least, most) if least <= most else (low, high)  # else one of the clocks was set

    @property
    def ahead_s(self) -> float:
        """How far the service's clock is ahead of this machine's, as far as that can be proved."""
        low, high = self._bounds
        return min(max(0.0, low), high)

    def now(self) -> datetime:
        """The time in UTC, by this machine's clock plus `ahead_s`."""
        return datetime.fromtimestamp(time.time() + self.ahead_s, UTC)


class Service:
    """The tables `PREFIX-registry` and `PREFIX-results`. `patience_s`: how long one call is tried again."""

    def __init__(self, region: str, prefix: str, patience_s: float = PATIENCE_S) -> None:
        self.name = f"dynamodb://{region}/{prefix}"
        self.region = region
        self.registry = f"{prefix}-registry"
        self.results = f"{prefix}-results"
        self.clock = Clock()
        self._patience_s = patience_s
        self._making = threading.Lock()
        self._made: Any = None

    @property
    def _client(self) -> Any:
        with self._making:
            self._made = self._made or session().create_client("dynamodb", self.region, config=CONFIG)
            return self._made

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """The threads of calls that are made at once."""
        return ThreadPoolExecutor(AT_ONCE_CALLS, "dynamodb")

    def close(self) -> None:
        """Wait for calls under way, and close the client."""
        self.pool.shutdown()
        if self._made:
            self._made.close()

    # Calls

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Changed if a condition does not hold; throttling and transactions at the same items are waited out."""
        for _ in self.tries():
            try:
                return self._answer(operation, parameters)
            except ClientError as error:
                found = codes(error)
                if found & CHANGED:
                    raise Changed from error
                if not found & (THROTTLED | AT_ONCE):
                    raise explained(error, self.name, self.region) from error
            except BotoCoreError as error:
                raise explained(error, self.name, self.region) from error
        raise AssertionError("tries end with an error")

    def call_unless(self, code: str, operation: str, **parameters: Any) -> dict[str, Any] | None:
        """None for this refusal of AWS."""
        try:
            return self.call(operation, **parameters)
        except DatabaseError as error:
            if isinstance(error.__cause__, ClientError) and code in codes(error.__cause__):
                return None
            raise

    def _answer(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        sent = time.time()
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
        except ClientError as error:
            self._hear(error.response, sent)
            raise
        self._hear(answer, sent)
        return answer

    def _hear(self, answer: Mapping[str, Any], sent: float) -> None:
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            self.clock.hear(date, sent, time.time())

    def tries(self) -> Iterator[None]:
        """One and more, with growing pauses between them; DatabaseUnavailable when the patience is at its end."""
        end = time.monotonic() + self._patience_s
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S, spread=0.5)
        while True:
            yield
            pause_s = pauses.pause_s()
            if time.monotonic() + pause_s > end:
                raise DatabaseUnavailable(
                    f"The lab's database {self.name} could not keep up for {self._patience_s:g} s: it throttles, or "
                    "others write the same items.",
                    "Nothing was changed: try again. Tables that are not on demand may have too little capacity.",
                )
            time.sleep(pause_s)

    # Items

    def get(self, collection: str, name: str) -> Item | None:
        """The registry's item of this `pk` and `sk`, as the last write left it; None if there is none."""
        key = {"pk": {"S": collection}, "sk": {"S": name}}
        item: Item | None = self.call("get_item", TableName=self.registry, Key=key, ConsistentRead=True).get("Item")
        return item

    def get_many(self, table: str, keys: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> list[Item]:
        """In no order; those that are there. Of each its attributes `names`, or all."""
        parts = [keys[start : start + MOST_READS] for start in range(0, len(keys), MOST_READS)]
        found = self.pool.map(lambda part: self._get_part(table, part, names), parts)
        return [item for part in found for item in part]

    def _get_part(self, table: str, keys: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Item]:
        items: list[Item] = []
        wanted = {table: {"Keys": keys, "ConsistentRead": True} | _only(names)}
        for _ in self.tries():
            answer = self.call("batch_get_item", RequestItems=wanted)
            items += answer["Responses"].get(table, [])
            wanted = answer.get("UnprocessedKeys") or {}
            if not wanted:
                break
        return items

    def query(self, table: str, **parameters: Any) -> Iterator[Item]:
        """The items of one partition in order of their keys; the next page is fetched while this one is used."""
        return self._items(self._page(table, parameters), table, parameters)

    def _page(self, table: str, parameters: Mapping[str, Any]) -> Future[dict[str, Any]]:
        return self.pool.submit(self.call, "query", TableName=table, ConsistentRead=True, **parameters)

    def _items(self, page: Future[dict[str, Any]] | None, table: str, parameters: Mapping[str, Any]) -> Iterator[Item]:
        while page:
            answer = page.result()
            following = answer.get("LastEvaluatedKey")
            page = self._page(table, {**parameters, "ExclusiveStartKey": following}) if following else None
            yield from answer["Items"]

    def write(self, table: str, requests: Iterable[Request]) -> None:
        """Many batches at once; what DynamoDB leaves undone is repeated until it is."""
        remaining = iter(requests)
        under_way: deque[Future[None]] = deque()
        while part := list(islice(remaining, MOST_WRITES)):
            under_way.append(self.pool.submit(self._write_part, table, part))
            if len(under_way) > 2 * AT_ONCE_CALLS:
                under_way.popleft().result()
        for future in under_way:
            future.result()

    def _write_part(self, table: str, part: list[Request]) -> None:
        undone = {table: part}
        for _ in self.tries():
            undone = self.call("batch_write_item", RequestItems=undone).get("UnprocessedItems") or {}
            if not undone:
                return


def _only(names: Sequence[str]) -> dict[str, Any]:
    if not names:
        return {}
    aliases = {f"#{index}": name for index, name in enumerate(names)}  # as some are words of DynamoDB's
    return {"ProjectionExpression": ", ".join(aliases), "ExpressionAttributeNames": aliases}


def key_range(partition: str, low: str, high: str) -> dict[str, Any]:
    """The parameters of a query of one partition of results, from the key `low` to `high`."""
    return {
        "KeyConditionExpression": "experiment_id = :partition AND rowid BETWEEN :low AND :high",
        "ExpressionAttributeValues": {":partition": {"S": partition}, ":low": {"S": low}, ":high": {"S": high}},
    }
