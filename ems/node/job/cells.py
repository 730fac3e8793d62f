"""The cells of a CSV file as values. Nothing depends on when lines arrive.

The first cell of a column that is not null settles whether it has numbers, booleans or text, if the stack file does not
declare it. A quoted cell is text, and so is a number with a leading zero: text never becomes a number. Null is an empty
cell, and `NA` but in a column whose text stands without quotes; `""` is the empty text.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from ems.base.messages import show
from ems.node.job.columns import WORDS, Misfit
from ems.spool.batch import ColumnType, Value
from ems.spool.kinds import EXACT, Values

QUOTED = "\ud800"  # stands before the content of a quoted cell; decoded UTF-8 has none
_NULLS = frozenset({"", "NA"})
_BOOLS = {"TRUE": True, "True": True, "true": True, "FALSE": False, "False": False, "false": False}
_WHOLE = r"[ \t]*(?:\+?0|[+-]?[1-9][0-9]*)[ \t]*"
_NUMBER = (
    r"[ \t]*[+-]?(?:(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    r"|[nN][aA][nN]|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)[ \t]*"
)
_ALL_WHOLE, _ALL_NUMBERS = (re.compile(f"(?:{cell}(?:,|\\Z))*+") for cell in (_WHOLE, _NUMBER))
_ZEROS = re.compile(r"([ \t]*[+-]?)0+(?=[0-9])")  # before a number that was declared as one

Type = Literal["number", "bool", "text"]


class Cells:
    """One column of one CSV file. `declared`: its type, where the stack file has one."""

    def __init__(self, name: str, declared: ColumnType | None) -> None:
        self._name, self._declared = name, declared
        self._type: Type | None = None
        self._quoted = False  # whether the first value was
        self._null = False  # whether an `NA` before it was read as null

    def values(self, cells: Sequence[str], quick: bool = True) -> Values:
        """Their values. Misfit at the first that is not of the column's type.

        `quick`: whole numbers among others may come as doubles, where these are the same.
        """
        if self._declared:
            return self._each(cells, _DECLARED[self._declared], {""} if self._declared == "text" else _MISSING)
        if self._type is None:
            self._settle(cells)
        if self._type == "text":
            return self._texts(cells)
        if self._type == "bool":
            return self._each(cells, _BOOLS.__getitem__, _NULLS)
        found = _quick_numbers(cells) if quick else None
        return self._each(cells, _number, _NULLS) if found is None else found

    def _settle(self, cells: Sequence[str]) -> None:
        for row, cell in enumerate(cells):
            if cell in _NULLS:
                self._null = self._null or cell == "NA"
                continue
            found: Type = "bool" if cell in _BOOLS else "number" if is_number(cell) else "text"
            quoted = cell.startswith(QUOTED)
            if found == "text" and self._null and not quoted:
                raise Misfit(
                    row, f"column {self._name!r} began with NA as null, but is text without quotes: {show(cell)}"
                )
            self._type, self._quoted = found, quoted
            return

    def _texts(self, cells: Sequence[str]) -> list[Value]:
        nulls = _NULLS if self._quoted else {""}
        return [None if cell in nulls else cell.removeprefix(QUOTED) for cell in cells]

    def _each(self, cells: Sequence[str], read: Callable[[str], Value], nulls: frozenset[str] | set[str]) -> Values:
        values: list[Value] = []
        for row, cell in enumerate(cells):
            try:
                values.append(None if cell in nulls else read(cell))
            except (ValueError, KeyError, OverflowError) as error:
                raise Misfit.of_type(row, self._name, _as_written(cell), self._expected) from error
        return values

    @property
    def _expected(self) -> str:
        return WORDS[self._declared] if self._declared else "boolean" if self._type == "bool" else "number"


def is_number(cell: str) -> bool:
    """Whether a cell without quotes is a number."""
    return re.fullmatch(_NUMBER, cell) is not None


def _as_written(cell: str) -> str:
    quote = '"' if cell.startswith(QUOTED) else ""
    return quote + cell.removeprefix(QUOTED) + quote


def _quick_numbers(cells: Sequence[str]) -> Values | None:
    """All at once; None where they have to be looked at one by one."""
    present = [cell for cell in cells if cell not in _NULLS] if not _NULLS.isdisjoint(cells) else cells
    text = ",".join(present)
    if not _ALL_NUMBERS.fullmatch(text):
        return None
    read, code = (int, "q") if _ALL_WHOLE.fullmatch(text) else (float, "d")
    try:
        numbers: array[Any] = array(code, map(read, present))
    except (ValueError, OverflowError):  # beyond 64 bits, or Python's limit of digits
        return None
    if code == "d" and any(number >= EXACT or number <= -EXACT for number in numbers):
        return None
    if len(present) == len(cells):
        return numbers
    found: Iterator[Value] = iter(numbers)
    return [None if cell in _NULLS else next(found) for cell in cells]


def _number(cell: str) -> int | float:
    if re.fullmatch(_WHOLE, cell):
        return int(cell)
    if not is_number(cell):
        raise ValueError(cell)
    number = float(cell)
    if math.isinf(number) and any(digit in cell for digit in "123456789"):
        raise ValueError(cell)  # beyond all doubles
    return number


def _declared_integer(cell: str) -> int:
    plain = cell.removeprefix(QUOTED)
    if not re.fullmatch(r"[ \t]*[+-]?[0-9]+[ \t]*", plain):
        raise ValueError(cell)
    return int(plain)


def _declared_float(cell: str) -> float:
    return float(_number(_ZEROS.sub(r"\1", cell.removeprefix(QUOTED))))


_DECLARED: dict[ColumnType, Callable[[str], Value]] = {  # zeros may lead, quotes do not matter, floats are rounded
    "text": lambda cell: cell.removeprefix(QUOTED),
    "bool": lambda cell: _BOOLS[cell.removeprefix(QUOTED)],
    "int64": _declared_integer,
    "float64": _declared_float,
}
_MISSING = _NULLS | {QUOTED, f"{QUOTED}NA"}
