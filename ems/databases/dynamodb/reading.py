"""Reading what counts of an experiment's results in DynamoDB: a merge of its partitions, by point and row."""

from __future__ import annotations

import json
import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby, islice
from typing import Any

from ems.databases import Condition, columns, selection
from ems.databases.dynamodb.columns import Layout
from ems.databases.dynamodb.items import MARKS, SHARDS, Item, decoded, joined, parsed, partition, point_bounds, whole
from ems.databases.dynamodb.log import Span, counts, entries
from ems.databases.dynamodb.service import Service, key_range
from ems.databases.states import Row
from ems.spool.batch import Batch, ColumnType, Mark, from_jsonable

MOST_PROJECTED = 300  # columns by name: an expression has at most 4 kB
GAP = 100  # points: what lies nearer is read in one go
ALL_POINTS = (0, 2**63 - 1)
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Floors:
    """From which batch on a point's items count: of replaced points, those of earlier ones do not."""

    def __init__(self, service: Service, row: Row) -> None:
        self._row = row
        self._replaced: list[tuple[int, list[int], list[int]]] = []
        unclean = row["unclean_batches"]
        for entry in entries(service, row, min(unclean), max(unclean)) if unclean else ():
            spans = sorted(entry.spans.get("replaced", []) + entry.spans.get("remarked", []))
            if spans and entry.number in unclean and counts(row, entry.number):
                self._replaced.append((entry.number, [first for first, _ in spans], [last for _, last in spans]))

    def counts(self, point: int, number: int) -> bool:
        """Whether what the batch of this number wrote of the point counts."""
        return counts(self._row, number) and not any(
            number < replacing and _is_in(point, firsts, lasts) for replacing, firsts, lasts in self._replaced
        )


def _is_in(point: int, firsts: list[int], lasts: list[int]) -> bool:
    index = bisect_right(firsts, point) - 1
    return index >= 0 and point <= lasts[index]


def _key(item: Item) -> str:
    key: str = item["rowid"]["S"]
    return key


def partitions(experiment_id: str) -> list[str]:
    """The keys of an experiment's partitions with results: its shards in order, then its marks."""
    return [partition(experiment_id, name) for name in (*range(SHARDS), MARKS)]


def rows(
    service: Service, row: Row, floors: Floors, bounds: tuple[str, str], names: Sequence[str] | None
) -> Iterator[Item]:
    """The items of the rows that count; `names`: the columns that are needed, None for all."""
    fields = _projection(names)
    of_shards = [
        joined(service.query(service.results, **_with_fields(key_range(name, *bounds), fields)))
        for name in partitions(row["id"])[:SHARDS]
    ]
    return counting(merge(*of_shards, key=_key), floors)


def _projection(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None or len(names) > MOST_PROJECTED else ["rowid", *names]


def _with_fields(parameters: dict[str, Any], fields: list[str] | None) -> dict[str, Any]:
    if fields is None:
        return parameters
    names = {f"#{index}": name for index, name in enumerate(fields)}
    return parameters | {"ProjectionExpression": ",".join(names), "ExpressionAttributeNames": names}


def counting(items: Iterable[Item], floors: Floors) -> Iterator[Item]:
    """Of each point and row, the item of the newest batch that counts."""
    for _, same in groupby(items, key=lambda item: _key(item)[:39]):
        found: Item | None = None
        for item in same:
            point, _, number = parsed(_key(item))
            if floors.counts(point, number) and (found is None or _key(found) < _key(item)):
                found = item
        if found is not None:
            yield found


def keys(service: Service, row: Row, floors: Floors, bounds: tuple[str, str]) -> Iterator[tuple[int, int]]:
    """The points and rows that count."""
    return (parsed(_key(item))[:2] for item in rows(service, row, floors, bounds, ()))


def covering(spans: Iterable[Span]) -> list[Span]:
    """Few spans with all points of these, and some others."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first - found[-1][1] <= GAP:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


# Results


def read(
    service: Service,
    row: Row,
    layout: Layout,
    wanted: Sequence[str] | None,
    where: Sequence[Condition],
    chunk_rows: int,
) -> Iterator[Batch]:
    """As `Database.results`; `row`: the experiment's, `layout`: of its table, which is there."""
    table = row["results_table"]
    names = selection.wanted(table, layout.types, wanted)
    selection.clauses(table, layout.types, where)  # refuses what has no meaning
    compared = [condition.column for condition in where if condition.column not in selection.ALWAYS]
    types = [(name, layout.types[name]) for name in dict.fromkeys([*names, *compared])]
    floors = Floors(service, row)
    items = rows(service, row, floors, point_bounds(*_wanted_points(where)), [name for name, _ in types])
    found = (values[: 2 + len(names)] for values in map(_values(types), items) if _fulfils(values, types, where))
    while part := list(islice(found, selection.chunk(chunk_rows, len(names)))):
        yield selection.batch_of(part, types[: len(names)])


def _values(types: Sequence[tuple[str, ColumnType]]) -> Callable[[Item], list[Any]]:
    def values(item: Item) -> list[Any]:
        point, number, _ = parsed(_key(item))
        return [point, number, *decoded(item, types)]

    return values


def _wanted_points(where: Sequence[Condition]) -> Span:
    first, last = ALL_POINTS
    for condition in where:
        value = condition.value
        if condition.column == "point" and isinstance(value, int | float) and math.isfinite(value):
            if condition.operator in {"=", ">", ">="}:
                first = max(first, math.floor(value))
            if condition.operator in {"=", "<", "<="}:
                last = min(last, math.ceil(value))
    return first, max(first, last)


def _fulfils(values: list[Any], types: Sequence[tuple[str, ColumnType]], where: Sequence[Condition]) -> bool:
    if not where:
        return True
    named = dict(zip([*selection.ALWAYS, *(name for name, _ in types)], values, strict=True))
    return all(_holds(named[condition.column], condition) for condition in where)


def _holds(value: Any, condition: Condition) -> bool:
    if condition.value is None:
        return (value is None) == (condition.operator == "=")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return False
    return OPERATORS[condition.operator](value, condition.value)


def rows_of(service: Service, row: Row, layout: Layout, points: Sequence[int]) -> Iterator[Batch]:
    """All columns of these points' rows, in batches of whole points."""
    types, wanted = list(layout.types.items()), set(points)
    floors = Floors(service, row)
    found = (
        values
        for span in covering(columns.spans(points))
        for values in map(_values(types), rows(service, row, floors, point_bounds(*span), None))
        if values[0] in wanted
    )
    for part in selection.whole_points(found, selection.chunk(selection.CELLS, len(types))):
        yield selection.batch_of(part, types)


# Marks


def marks(service: Service, row: Row, span: Span = ALL_POINTS, ascending: bool = True) -> Iterator[tuple[Mark, int]]:
    """In order of points, with the run that made them."""
    bounds = key_range(partition(row["id"], MARKS), *point_bounds(*span))
    items = service.query(service.results, **bounds, ScanIndexForward=ascending)
    return map(_mark, counting(items, Floors(service, row)))


def _mark(item: Item) -> tuple[Mark, int]:
    parameters = from_jsonable(json.loads(item["parameters"]["S"]))
    mark = Mark(parsed(_key(item))[0], item["state"]["S"], parameters, item["error"]["S"])
    return mark, whole(item["attempt"]["N"])
