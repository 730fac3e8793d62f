"""Reading a results table: what is asked for, checked and as one SQLAlchemy statement for every SQL service."""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnClause,
    ColumnElement,
    Double,
    Select,
    Text,
    and_,
    column,
    literal,
    quoted_name,
    select,
    table,
)
from sqlalchemy.types import TypeEngine

from ems.base.errors import NotSelectable
from ems.databases import Condition
from ems.databases.columns import KEYS
from ems.spool.batch import Batch, Column, ColumnType, Value

CELLS = 200_000  # of one batch
ALWAYS: dict[str, ColumnType] = {"point": "int64", "row": "int64"}
SQL_TYPES: dict[ColumnType, type[TypeEngine[Any]]] = {
    "int64": BigInteger,
    "float64": Double,
    "text": Text,
    "bool": Boolean,
}
COMPARE: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NUMBER = "a number (a whole one from -2^63 to 2^63-1, and exact in the column's type), or `is null`"
ALLOWED: dict[ColumnType, str] = {
    "int64": NUMBER,
    "float64": NUMBER,
    "text": "text in quotes, or `is null`",
    "bool": "true or false, by = or !=, or `is null`",
}


def rows_statement(
    name: str, types: Mapping[str, ColumnType], experiment_id: str, names: Sequence[str], where: Sequence[Condition]
) -> Select[Any]:
    """point, row and `names` of the table's rows that fulfil `where`, in order; `types`: of the columns after keys."""
    selected = [_column(key, BigInteger) for key in ALWAYS] + [_column(key, SQL_TYPES[types[key]]) for key in names]
    mine = _column(KEYS[0], Text) == experiment_id
    source = table(quoted_name(name, True))
    return select(*selected).select_from(source).where(mine, *clauses(name, types, where)).order_by(*selected[:2])


def wanted(name: str, types: Mapping[str, ColumnType], columns: Sequence[str] | None) -> list[str]:
    """The columns to read besides point and row; NotSelectable for one that is not in the table."""
    if columns is None:
        return list(types)
    _check_known(name, types, columns)
    return [column for column in dict.fromkeys(columns) if column not in ALWAYS]


def chunk(chunk_rows: int, columns: int, cells: int = CELLS) -> int:
    """How many rows of so many columns to read at once."""
    return max(min(chunk_rows, cells // (columns + len(ALWAYS))), 1)


def clauses(name: str, types: Mapping[str, ColumnType], where: Sequence[Condition]) -> list[ColumnElement[bool]]:
    """NotSelectable for an unknown column, or a value or operator that does not fit its type."""
    known = {**types, **ALWAYS}
    _check_known(name, types, [condition.column for condition in where])
    return [_clause(name, condition, known[condition.column]) for condition in where]


def _clause(name: str, condition: Condition, type: ColumnType) -> ColumnElement[bool]:
    compared = _column(condition.column, SQL_TYPES[type])
    if condition.value is None and condition.operator in {"=", "!="}:
        return compared.is_(None) if condition.operator == "=" else compared.is_not(None)
    if not _fits(condition, type):
        raise _misfit(name, condition, type)
    clause = COMPARE[condition.operator](compared, _value(condition.value, type))
    if type == "float64" and condition.operator in {"!=", ">", ">="}:
        return and_(clause, compared <= literal(math.inf, Double))  # some services put NaN above all numbers
    return clause


def _fits(condition: Condition, type: ColumnType) -> bool:
    value = condition.value
    if type == "bool":
        return isinstance(value, bool) and condition.operator in {"=", "!="}
    if type == "text":
        return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, float):
        return not math.isnan(value)
    return -(2**63) <= value < 2**63 and (type == "int64" or float(value) == value)


def _value(value: Value, type: ColumnType) -> ColumnElement[Any]:
    if type == "float64":
        return literal(float(value or 0), Double)
    if isinstance(value, float):  # compared with integers
        exact = value.is_integer() and -(2**63) <= value < 2**63
        return literal(int(value), BigInteger) if exact else literal(value, Double)
    return literal(value, SQL_TYPES[type])


def _misfit(name: str, condition: Condition, type: ColumnType) -> NotSelectable:
    return NotSelectable(
        f"results table {name!r}: column {condition.column!r} is {type}, "
        f"so `{condition.operator} {condition.value!r}` has no meaning.",
        f"Allowed is {ALLOWED[type]}.",
    )


def _check_known(name: str, types: Mapping[str, ColumnType], columns: Sequence[str]) -> None:
    unknown = [column for column in columns if column not in types and column not in ALWAYS]
    if unknown:
        raise NotSelectable(
            f"results table {name!r} has no column {', '.join(map(repr, unknown))}.",
            f"There are: {', '.join([*ALWAYS, *types])}.",
        )


def _column(name: str, type: type[TypeEngine[Any]]) -> ColumnClause[Any]:
    return column(quoted_name(name, True), type)


# What was read


def batch_of(rows: Sequence[Sequence[Any]], types: Iterable[tuple[str, ColumnType]]) -> Batch:
    """Rows of point, row and the columns of `types`; there is at least one."""
    points, numbers, *values = zip(*rows, strict=True)
    typed = (_typed(name, type, column) for (name, type), column in zip(types, values, strict=True))
    return Batch(array("q", points), array("q", numbers), tuple(typed))


def _typed(name: str, type: ColumnType, values: Sequence[Any]) -> Column:
    if type == "bool":
        return Column(name, type, [None if value is None else bool(value) for value in values])  # SQLite has 0 and 1
    if type == "text" or None in values:
        return Column(name, type, list(values))
    return Column(name, type, array("d" if type == "float64" else "q", values))


def whole_points(rows: Iterable[Sequence[Any]], least_rows: int) -> Iterator[list[Sequence[Any]]]:
    """The rows in lists that end with the last row of a point."""
    found: list[Sequence[Any]] = []
    for _, of_point in groupby(rows, key=operator.itemgetter(0)):
        found += of_point
        if len(found) >= least_rows:
            yield found
            found = []
    if found:
        yield found
