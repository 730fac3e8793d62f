"""A whole lab copied into DynamoDB or out of it: its items as rows of the registry's tables."""

from __future__ import annotations

import json
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeVar

from ems.databases import tables
from ems.databases.dynamodb import log, reading
from ems.databases.dynamodb.errors import Changed
from ems.databases.dynamodb.heads import Heads
from ems.databases.dynamodb.items import Item, item_of
from ems.databases.dynamodb.registry import Registry, assignments, collection_of
from ems.databases.dynamodb.results import Results, Writer
from ems.databases.dynamodb.runs import OUTPUT, OWN, ROUND, entries_of, output_item, round_item, run_key
from ems.databases.dynamodb.service import AT_ONCE_CALLS
from ems.databases.states import RUN
from ems.databases.states import Values as Row
from ems.spool.batch import Batch, Mark, from_jsonable, jsonable

ROWS_AT_ONCE = 1_000
T = TypeVar("T")


class Copying:
    """Rows are written many at once, not in a transaction: a copy that was interrupted is repeated."""

    def __init__(self, registry: Registry, results: Results) -> None:
        self._registry = registry
        self._service = registry.service
        self._results = results

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """As `Database.rows`."""
        found: dict[str, Callable[[], Iterable[Row]]] = {
            "experiment": self._experiment_rows,
            "run": self._runs,
            "charge": self._charges,
            "point": self._marks,
            "copied": self._origins,
            "proposed": partial(self._of_each, ROUND),
            "output": partial(self._of_each, OUTPUT),
        }
        names = tables.metadata.tables[table].c.keys()
        for row in found[table]() if table in found else self._registry.collection(table):
            yield {name: row.get(name) for name in names}

    def _experiment_rows(self) -> list[Row]:
        found = self._registry.rows([entry["experiment_id"] for entry in self._registry.collection("experiments")])
        return [row | {"files_left": row["files_left"] or ""} for row in found]  # which an older EMS did not write

    def _runs(self) -> Iterator[Row]:
        for row in self._experiment_rows():
            for run in self._registry.collection(collection_of(row["id"]), "run/"):
                yield {"platform": ""} | run  # which an older EMS did not write

    def _charges(self) -> Iterator[Row]:
        return ({"basis": ""} | run | {"at": run["finished_at"]} for run in self._runs() if "usd" in run)

    def _marks(self) -> Iterator[Row]:
        for row in self._experiment_rows():
            for mark, attempt in reading.marks(self._service, row):
                values = {"point": mark.point, "state": mark.state, "error": mark.error, "attempt": attempt}
                yield {"experiment_id": row["id"], "parameters": jsonable(mark.parameters), **values}

    def _origins(self) -> Iterator[Row]:
        for row in self._experiment_rows():
            for origin, attempt in log.origins(self._service, row):
                first, last, there = origin.points.start, origin.points[-1], origin.source_points.start
                values = {"first_point": first, "last_point": last, "source_point": there, "attempt": attempt}
                yield {"experiment_id": row["id"], "source": origin.source, **values}

    def _of_each(self, beginning: str) -> Iterator[Row]:
        for row in self._experiment_rows():
            yield from self._registry.stream(collection_of(row["id"]), beginning)

    def put_rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """As `Database.put_rows`, but for the transaction."""
        put: dict[str, Callable[[list[Row]], None]] = {
            "experiment": self._put_experiments,
            "run": self._put_runs,
            "charge": self._put_charges,
            "point": self._put_marks,
            "copied": self._put_origins,
            "proposed": partial(self._put_items, round_item),
            "output": partial(self._put_items, output_item),
        }
        remaining = map(dict, rows)
        while part := list(islice(remaining, ROWS_AT_ONCE)):
            if table in put:
                put[table](part)
            else:
                self._put_all({"pk": table, "sk": row["id"]} | row for row in part)
        if table == "experiment":
            Heads(self._registry).write_all()

    def _put_all(self, rows: Iterable[Row]) -> None:
        self._registry.put_many(map(item_of, rows))

    def _put_experiments(self, rows: list[Row]) -> None:
        _at_once(self._put_experiment, rows)
        self._registry.put_many(entry for row in rows for entry in entries_of(row))

    def _put_experiment(self, row: Row) -> None:
        item = item_of(OWN | {"pk": collection_of(row["id"]), "sk": "experiment"} | row)
        new = {"Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
        try:
            self._registry.checked.call("put_item", TableName=self._service.registry, **new)
        except Changed:
            self._assign(row["id"], "experiment", row)

    def _put_runs(self, rows: list[Row]) -> None:
        self._put_all({"pk": collection_of(r["experiment_id"]), "sk": run_key(r["attempt"])} | r for r in rows)
        _at_once(self._note_runs, {row["experiment_id"] for row in rows})

    def _note_runs(self, experiment_id: str) -> None:
        """In the experiment's item, what it says of its runs."""
        newest = self._registry.collection(collection_of(experiment_id), "run/")[-1]
        of_run = {name: newest.get(name) for name in RUN}
        self._assign(experiment_id, "experiment", of_run | {"run_state": newest["state"]})

    def _put_charges(self, rows: list[Row]) -> None:
        _at_once(self._put_charge, rows)

    def _put_charge(self, row: Row) -> None:
        charge = {name: row[name] for name in ("funding", "hours", "usd", "basis")}
        self._assign(row["experiment_id"], run_key(row["attempt"]), charge)

    def _assign(self, experiment_id: str, key: str, values: Row) -> None:
        self._service.call("update_item", **self._registry.at(collection_of(experiment_id), key), **assignments(values))

    def _put_marks(self, rows: list[Row]) -> None:
        for (id, attempt), same in groupby(rows, key=lambda row: (row["experiment_id"], row["attempt"])):
            found = (
                Mark(row["point"], row["state"], from_jsonable(_plain(row["parameters"])), row["error"]) for row in same
            )
            self._adopt(Writer(id, attempt), Batch(array("q"), array("q"), (), marks=tuple(found)))

    def _put_items(self, item: Callable[[Row], Item], rows: list[Row]) -> None:
        self._registry.put_many(map(item, rows))

    def _put_origins(self, rows: list[Row]) -> None:
        def of(row: Row) -> tuple[str, int, str]:
            return row["experiment_id"], row["attempt"], row["source"]

        for (id, attempt, source), same in groupby(sorted(rows, key=of), key=of):
            copied = [(row["first_point"], row["last_point"], row["source_point"]) for row in same]
            self._adopt(Writer(id, attempt), Batch(array("q"), array("q"), ()), source, copied)

    def put_results(self, results: Sequence[tuple[str, Batch]]) -> None:
        """As `Database.put_results`, but for the transaction."""
        for experiment_id, batch in results:
            self._adopt(Writer(experiment_id, 0), batch)

    def _adopt(self, writer: Writer, batch: Batch, source: str = "", copied: Iterable[log.Copy] = ()) -> None:
        self._results.write(writer, batch, source, copied)
        self._results.clean(self._registry.row(writer.experiment_id))


def _at_once(change: Callable[[T], None], each: Iterable[T]) -> None:
    """In threads other than the service's, for which these wait."""
    with ThreadPoolExecutor(AT_ONCE_CALLS) as pool:
        deque(pool.map(change, each), maxlen=0)


def _plain(parameters: Any) -> Any:
    return json.loads(parameters) if isinstance(parameters, str) else parameters
