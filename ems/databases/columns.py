"""How the columns of a batch meet those of a results table: the same rules for every database. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ems.base.errors import DatabaseError
from ems.spool.batch import Batch, Column, ColumnType, Value

KEYS = ("experiment_id", "point", "row")
RESERVED = frozenset({*KEYS, "rowid"})


@dataclass(frozen=True)
class TableChange:
    """What a results table needs before it can take a batch. `widened`: integer columns that become double."""

    added: dict[str, ColumnType]
    widened: tuple[str, ...]


def meet(table: str, stored: Mapping[str, ColumnType], arriving: Sequence[Column]) -> TableChange:
    """DatabaseError: a name that cannot be a column, or a type that is neither the stored one nor int64/float64."""
    check_names(table, stored, [column.name for column in arriving])
    known = [column for column in arriving if column.name in stored]
    for column in known:
        _check_type(table, column, stored[column.name])
    return TableChange(
        {column.name: column.type for column in arriving if column.name not in stored},
        tuple(c.name for c in known if (stored[c.name], c.type) == ("int64", "float64") and not is_null(c)),
    )


def check_names(table: str, stored: Mapping[str, ColumnType], names: Sequence[str]) -> None:
    """DatabaseError unless `names` can be columns of a table that has those of `stored`.

    Refused: a name that comes twice, is empty or reserved, has NUL, or differs from another only by case.
    """
    seen = {name.lower(): name for name in stored}
    fresh = [name for name in names if name not in stored]
    if len(set(names)) < len(names):
        raise DatabaseError(f"results table {table!r}: a column comes twice in one batch: {sorted(names)}.")
    for name in fresh:
        if not name or "\0" in name or name.lower() in RESERVED:
            allowed = f"Any name but an empty one and {', '.join(sorted(RESERVED))}: rename it in the job's output."
            raise DatabaseError(f"results table {table!r}: {name!r} cannot be the name of a column.", allowed)
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise DatabaseError(
                f"results table {table!r}: columns {other!r} and {name!r} differ only by case.",
                "Databases take them for the same: rename one in the job's output.",
            )


def _check_type(table: str, column: Column, stored: ColumnType) -> None:
    if column.type == stored or {column.type, stored} == {"int64", "float64"} or is_null(column):
        return
    raise DatabaseError(
        f"results table {table!r}: column {column.name!r} is {stored} and cannot take {column.type}.",
        "Allowed: the same type, or int64 with float64. Let the job write one type, declare it in the stack file "
        "(`columns:` of the results), or use another results table.",
    )


def is_null(column: Column) -> bool:
    """Whether no row has a value: such a column fits every type."""
    return isinstance(column.values, list) and all(value is None for value in column.values)


def as_stored(table: str, column: Column, stored: ColumnType) -> Column:
    """The column with its integers as doubles if it is stored so; DatabaseError if one would not stay exact."""
    if stored != "float64" or (column.type == "float64" and not isinstance(column.values, list)):
        return column
    doubles: list[Value] = [None if value is None else _double(table, column.name, value) for value in column.values]
    return replace(column, type="float64", values=doubles)


def check_fitting(table: str, stored: Mapping[str, ColumnType], change: TableChange, batch: Batch) -> None:
    """DatabaseError if a value of the batch would not stay exact in the table that has these columns after `change`."""
    types = {**stored, **change.added, **dict.fromkeys(change.widened, "float64")}
    for column in batch.columns:
        as_stored(table, column, types[column.name])  # type: ignore[arg-type]


def _double(table: str, name: str, value: Value) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, str) or value is None or int(float(value)) != value:
        raise inexact(table, name, value)
    return float(value)


def inexact(table: str, name: str, value: Value) -> DatabaseError:
    """The error for a column of integers and doubles whose integer `value` is not an exact double."""
    return DatabaseError(
        f"results table {table!r}: column {name!r} is int64 and float64, but {value!r} is not an exact double.",
        "Integers beyond 2^53 meet doubles only if exact. Let the job write one type, or use another results table.",
    )


def check_own(table: str, keys: Sequence[str], types: Mapping[str, str], allowed: Container[str]) -> None:
    """DatabaseError if the table begins with other columns than EMS's `keys`, or a column has a type that EMS does not
    write; `types`: by column, as the service names them."""
    if tuple(keys) != tuple(types)[: len(keys)]:
        raise DatabaseError(
            f"table {table!r} of the database was not made by EMS, so no results can go there.",
            "Give `results: {table: …}` another name.",
        )
    for name, type in types.items():
        if type not in allowed:
            raise DatabaseError(
                f"results table {table!r}: column {name!r} has the type {type}, which is none of EMS: it was changed.",
                "Change it back by an ALTER TABLE, or give `results: {table: …}` another name.",
            )


def lost(table: str, rows: int) -> DatabaseError:
    """The error for a results table that somebody dropped, with so many rows in it."""
    return DatabaseError(
        f"results table {table!r} is gone, with {rows} rows that were stored in it.",
        "Restore it from a backup. Or, to compute all of it again, without EMS: "
        f"UPDATE experiment SET rows_stored = 0 WHERE results_table = '{table}'",
    )


def has_table(table: str, batch: Batch) -> bool:
    """Whether there is a table for rows; DatabaseError if there is none, and the batch has some."""
    if not table and len(batch):
        problem = "the job has rows, but its stack file says `results: none`."
        raise DatabaseError(problem, "Name a table for them: results: {table: NAME}")
    return bool(table)


def check_batch(batch: Batch) -> None:
    """DatabaseError unless every column has one value per row, and every marked point no row and one mark."""
    for name, length in [("row", len(batch.rows)), *((c.name, len(c.values)) for c in batch.columns)]:
        if length != len(batch):
            raise DatabaseError(f"column {name!r} of a batch has {length} values for {len(batch)} rows.")
    if not batch.marks:
        return
    states = Counter([*(mark.point for mark in batch.marks), *set(batch.points)])
    point, count = states.most_common(1)[0]
    if count > 1:
        raise DatabaseError(
            f"point {point} of a batch has a mark and rows, or two marks.",
            "A point is stored, empty or failed: the batch's writer must say which.",
        )


def spans(points: Iterable[int]) -> list[tuple[int, int]]:
    """The points as inclusive ranges of neighbours, ascending: [3, 1, 2, 7] → [(1, 3), (7, 7)]."""
    ascending = sorted(set(points))
    if ascending and ascending[-1] - ascending[0] == len(ascending) - 1:  # as mostly
        return [(ascending[0], ascending[-1])]
    return [(found[0], found[-1]) for found in ranges(ascending)]


def ranges(points: Iterable[int]) -> Iterator[range]:
    """Neighbours among ascending points: [1, 2, 3, 7] → range(1, 4), range(7, 8)."""
    remaining = iter(points)
    first = next(remaining, None)
    if first is None:
        return
    last = first
    for point in remaining:
        if point != last + 1:
            yield range(first, last + 1)
            first = point
        last = point
    yield range(first, last + 1)
