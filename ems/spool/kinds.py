"""What a column is after the values that came so far, one rule for all that fills columns: nothing loses a digit.

The first value settles the type. Only int64 and float64 go together, as doubles, where each integer is one exactly;
an integer beyond 64 bits counts as the double that it is exactly. What fits no column, or not this one, is a misfit:
the same one however the values are divided among calls.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, Union

from ems.spool.batch import Column, ColumnType, Value

Kind = Literal["int64", "giant", "float64", "text", "bool"]  # giant: int64 with a value that is not an exact double
Values = Union[Sequence[Value], "array[int]", "array[float]"]

EXACT = 2**53  # up to here each integer is an exact double
DECLARED: dict[str, ColumnType] = {"text": "text", "integer": "int64", "float": "float64", "boolean": "bool"}
_NULL = type(None)
_KINDS: dict[type, Kind] = {int: "int64", float: "float64", str: "text", bool: "bool"}


def joined(known: Kind | None, found: Kind) -> Kind | None:
    """What a column is that was `known` and gets `found`; None where the two do not go together."""
    pair = {known or found, found}
    if len(pair) == 1:
        return found
    if pair == {"int64", "giant"}:
        return "giant"
    return "float64" if pair == {"int64", "float64"} else None


def settled(values: Values, known: Kind | None) -> tuple[Kind | None, dict[int, Kind | None]]:
    """What a column is with these values. Of those that do not fit, by row: what it was; None if no column takes them.

    The kind is None for a column of which only nulls were seen.
    """
    quick = _quick_kind(values)
    kind = joined(known, quick) if quick else None
    if kind:
        return kind, {}
    kind, misfits = known, {}
    for row, value in enumerate(values):
        if value is None:
            continue
        found = kind_of(value)
        merged = joined(kind, found) if found else None
        if merged:
            kind = merged
        else:
            misfits[row] = kind if found else None
    return kind, misfits


def _quick_kind(values: Values) -> Kind | None:
    """Of a whole column at once; None where it has to be looked at value by value."""
    types: set[type] = {int} if _is_ints(values) else set(map(type, values)) - {_NULL}
    if types == {float}:
        return "float64"
    if types == {bool}:
        return "bool"
    present: Any = values if _is_ints(values) else [value for value in values if type(value) in {int, str}]
    if types == {str}:
        return kind_of("".join(present))
    if present and int in types and types <= {int, float} and max(present) <= EXACT and min(present) >= -EXACT:
        return "float64" if float in types else "int64"
    return None


def _is_ints(values: Values) -> bool:
    return isinstance(values, array) and values.typecode == "q"


def kind_of(value: int | float | str) -> Kind | None:
    """None for what no column can hold."""
    if isinstance(value, str):
        return None if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value) else "text"
    if type(value) is int and not -EXACT <= value <= EXACT:
        if -(2**63) <= value < 2**63:
            return "int64" if is_exact(value) else "giant"
        return "float64" if is_exact(value) else None
    return _KINDS[type(value)]


def is_exact(value: int) -> bool:
    """Whether a double holds this integer."""
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def of_number(value: Any) -> int | float:
    """A decimal number, fraction or long double as an integer, or as the double of the same digits.

    ValueError if there is none: "has more digits than …".
    """
    if isinstance(value, Decimal):
        return _of_decimal(value)
    if isinstance(value, Fraction) and value.denominator == 1:
        return value.numerator
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if value != number and value == value:  # noqa: PLR0124  (NaN is a double)
        raise ValueError("has more digits than a double keeps")
    return number


def _of_decimal(value: Decimal) -> int | float:
    if not value.is_finite():
        return float(value)
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= 0:
        return int(value)
    number = float(value)
    if Decimal(repr(number)) != value:
        raise ValueError("has more digits than a double keeps")
    return number


def column(name: str, kind: Kind, values: Any) -> Column:
    """A column of values that fit `kind`; an array where nothing is null."""
    type_: ColumnType = "int64" if kind == "giant" else kind
    if type_ not in {"int64", "float64"}:
        return Column(name, type_, list(values))
    code: Any = "d" if type_ == "float64" else "q"
    if isinstance(values, array):
        return Column(name, type_, values if values.typecode == code else array(code, values))
    if None not in values:
        return Column(name, type_, array(code, values))
    if type_ == "float64":
        values = [None if value is None else float(value) for value in values]
    return Column(name, type_, list(values))
