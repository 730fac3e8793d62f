"""Rows of what a sweep's function returned.

A point's function returns one of:

    a dict                      one row: numbers, text, booleans, dates, times and None by column name
    a list of such dicts        a row each; the empty list: no rows
    a pandas or polars frame    its rows; a pandas index is left out, missing values are nulls, NaN of a float stays
    None                        no rows

Scalars and 0-d arrays of numpy and its likes count as the Python value they hold; a decimal number, a fraction and a
long double as the integer or double that they are, and nothing is rounded. Dates and times become text such as
`2026-01-31 12:00:00+00:00`, which every database keeps alike; NaT and NA of pandas become null. A 1-d array or a Series
in a dict stands for a column per element: `v` of 1,000 elements becomes `v000` … `v999`, numbered to the width of the
last.

The same value is stored alike, or refused alike, in whatever it is returned.

Standard library alone, Python 3.9 or newer; pandas and polars are looked at only where the function has loaded them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from reprlib import Repr
from typing import Any

from ems.base.errors import EmsError
from ems.spool.batch import Value
from ems.spool.kinds import of_number

ALLOWED = (
    "Allowed: a dict of numbers, text, booleans, dates, times, None and 1-d arrays; a list of such dicts; a pandas or "
    "polars DataFrame; None for a point without rows."
)
_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 200
_PLAIN = frozenset({int, float, str, bool, type(None)})
_MISSING = frozenset({"NAType", "NaTType"})  # of pandas
_OWN: dict[type, Any] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
}  # whatever a subclass makes of them


class BadResult(EmsError):
    """A point's result that cannot be stored."""


def rows_of(result: Any) -> list[dict[str, Value]]:
    """The rows of a function's result. BadResult says what is wrong with it and what is allowed."""
    if result is None:
        return []
    if isinstance(result, Mapping):
        return [_plain_row(result)]
    if isinstance(result, (list, tuple)) and all(isinstance(row, Mapping) for row in result):
        return list(map(_plain_row, result))
    return list(map(_plain_row, _frame_rows(result)))


def _frame_rows(result: Any) -> Iterable[dict[str, Any]]:
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas and isinstance(result, pandas.DataFrame):
        rows = _pandas_rows(result, pandas.NA)
    elif polars and isinstance(result, polars.DataFrame):
        rows = result.rows()
    else:
        raise BadResult(f"The function returned {shown(result)}.", ALLOWED)
    names = list(result.columns)
    if len(set(names)) < len(names):
        raise BadResult(f"The frame has a column twice: {names}.", "Rename one of the two.")
    return (dict(zip(names, row)) for row in rows)  # noqa: B905  (not before Python 3.10)


def _pandas_rows(frame: Any, na: Any) -> list[list[Any]]:
    rows: list[list[Any]] = frame.to_numpy(dtype=object).tolist()
    if any(value is na or _is_nan(value) for value in chain.from_iterable(rows)):
        floats = [getattr(dtype, "kind", "") == "f" for dtype in frame.dtypes]
        for row in rows:
            for i, value in enumerate(row):
                if value is na or (_is_nan(value) and not floats[i]):
                    row[i] = None
    return rows


def _is_nan(value: Any) -> bool:
    return type(value) is float and math.isnan(value)


def _plain_row(row: Mapping[str, Any]) -> dict[str, Value]:
    if _PLAIN.issuperset(map(type, row.values())):
        return row if type(row) is dict else dict(row)
    plain: dict[str, Value] = {}
    for name, value in row.items():
        cells = _cells(name, value)
        if not plain.keys().isdisjoint(cells):
            twice = sorted(plain.keys() & cells)[0]
            raise BadResult(f"Column {twice!r} comes twice: an array has a column per element.", "Rename one.")
        plain.update(cells)
    return plain


def _cells(name: str, value: Any) -> dict[str, Value]:
    if type(value) in _PLAIN:
        return {name: value}
    items = _items(name, value)
    if items is None:
        return {name: _scalar(name, value)}
    if not _PLAIN.issuperset(map(type, items)):
        items = [_scalar(name, item) for item in items]
    return dict(zip(_numbered(name, len(items)), items))  # noqa: B905


def _items(name: str, value: Any) -> list[Any] | None:
    """Of a 1-d array; None for anything else."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if polars and isinstance(value, polars.Series):
        return list(value.to_list())
    if getattr(value, "ndim", None) != 1 or not hasattr(value, "tolist"):
        return None
    kind = _kind(name, value)
    if pandas and isinstance(value, (pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray)):
        value = pandas.Series(value, copy=False)
        return [row[0] for row in _pandas_rows(value.to_frame(), pandas.NA)]
    if kind == "M":  # tolist() gives integers
        return list(value)
    items: list[Any] = value.tolist()
    return items


def _kind(name: str, value: Any) -> str:
    """Of an array or scalar, as numpy names it. BadResult for durations, which may hold bare integers."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "m":
        raise BadResult(f"Column {name!r} is {shown(value)}, a duration.", "Give its seconds, as a number.")
    return str(kind)


@lru_cache(maxsize=64)
def _numbered(name: str, count: int) -> list[str]:
    width = len(str(count - 1))
    return [f"{name}{i:0{width}d}" for i in range(count)]


def _scalar(name: str, value: Any) -> Value:
    """A subclass of Python's own types (an IntEnum, …) as what it is to the database, and a time as text."""
    if type(value) not in _PLAIN and getattr(value, "ndim", None) == 0:
        value = _held(name, value)
    if type(value) in _PLAIN:
        return value  # type: ignore[no-any-return]
    if type(value).__name__ in _MISSING:
        return None
    if isinstance(value, (date, time)) or type(value).__name__ == "datetime64":
        text = str(value)
        return None if text == "NaT" else text.replace("T", " ")
    for plain in (int, float, str):
        if isinstance(value, plain):
            return _OWN[plain](value)  # type: ignore[no-any-return]
    if isinstance(value, (Decimal, Fraction)) or type(value).__name__ == "longdouble":
        return _number(name, value)
    raise BadResult(f"Column {name!r} is {shown(value)}.", ALLOWED)


def _held(name: str, value: Any) -> Any:
    """What a scalar of numpy and its likes, or a 0-d array, holds."""
    kind = _kind(name, value)
    if getattr(value, "mask", False):  # of a masked array: there is no value
        return None
    if kind == "M":
        return value[()]
    return value.item() if hasattr(value, "item") else value


def _number(name: str, value: Any) -> int | float:
    """A number of another precision, if a double or an integer is the same number."""
    try:
        return of_number(value)
    except ValueError as error:
        hint = "Give float(x), which rounds it, or str(x), which keeps it as text."
        raise BadResult(f"Column {name!r} is {shown(value)}, which {error}.", hint) from error


def shown(value: Any) -> str:
    """A value and its type for a message, such as `a numpy.ndarray: array([[1, 2]…`."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}: {_REPR.repr(value)}"
