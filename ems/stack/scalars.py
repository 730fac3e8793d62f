"""Plain scalars as Pulumi reads them (Go's YAML, version 3), and values in the form in which it writes them back. Pure.

`tests/end_to_end/test_stack_files.py` asks the engine itself about all of them.
"""

from __future__ import annotations

import calendar
import math
import re

from ems.base.messages import UnquotedDate
from ems.stack.checks import NUMBER, REWRITTEN_DATE

_WORDS: dict[str, object] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], math.nan),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], math.inf),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], -math.inf),
}
_WHOLE = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|([1-9][0-9]*|0))")
_TIME = r"(?:[01]?\d|2[0-3]):[0-5]?\d:[0-5]?\d(?:[.,]\d+)?"
_DAY = re.compile(rf"(\d{{4}})-(\d\d?)-(\d\d?)(?:[Tt]({_TIME})(Z|[-+]\d\d:\d\d)| ({_TIME}))?", re.ASCII)
_AFTER_A_POINT = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
MOST_DIGITS = 400


def scalar(text: str) -> object:
    """The value of a plain scalar; a date or time without quotes is an UnquotedDate.

    Whole numbers in decimals keep all digits, also those that Pulumi loses: it can be told then.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _is_day(text):
        return UnquotedDate(text)
    digits = text.replace("_", "") if text[0] in "+-0123456789" or _AFTER_A_POINT.fullmatch(text) else text
    whole = _WHOLE.fullmatch(digits) if len(digits) <= MOST_DIGITS else None
    if whole and (value := _whole(*whole.groups(default=""))) is not None:
        return value
    if NUMBER.fullmatch(digits) and math.isfinite(number := float(digits)):
        return number
    return text


def _whole(sign: str, sixteen: str, two: str, eight: str, ten: str) -> int | None:
    """None for one of more than 64 bits that is not in decimals, which Go does not take for a whole number."""
    digits, base = next(found for found in ((sixteen, 16), (two, 2), (eight, 8), (ten, 10)) if found[0])
    value = int(sign + digits, base)
    return value if ten or -(2**63) <= value < (2**63 if sign else 2**64) else None


def _is_day(text: str) -> bool:
    found = _DAY.fullmatch(text)
    if not found:
        return False
    year, month, day = map(int, found.group(1, 2, 3))
    return 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year or 4, month)[1]


def rewritten(value: object) -> object:
    """`value` as it is after Pulumi has rewritten the file: the same for all that it writes alike.

    Booleans and null are marked, for in Python `True == 1`.
    """
    match value:
        case dict():
            return {key: rewritten(item) for key, item in value.items()}
        case list():
            return [rewritten(item) for item in value]
        case bool() | None:
            return (str(value),)
        case int() | float():
            return _number(value)
        case UnquotedDate():
            return _printed(value.text)
        case _:
            text = str(value)
            return text.rpartition(" ")[0] if REWRITTEN_DATE.fullmatch(text) else text


def rewritten_setting(value: object) -> object:
    """The same for a value that stands directly below `config:`, where Pulumi writes scalars as text."""
    return rewritten(scalar(value) if isinstance(value, str) else value)


def _number(value: float) -> float:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    return value if -(2**63) <= value < 2**63 else float(value)


def _printed(date: str) -> str:
    """A date or time as Go prints it, without the name of the zone, which depends on the machine."""
    found = _DAY.fullmatch(date)
    year, month, day, time, zone, alone = found.groups(default="") if found else (date, *[""] * 5)
    clock, point, fraction = (time or alone or "0:0:0").replace(",", ".").partition(".")
    hours = ":".join(f"{part:0>2}" for part in clock.split(":"))
    offset = zone.replace(":", "") if zone not in {"", "Z"} else "+0000"
    return f"{year}-{month:0>2}-{day:0>2} {hours}{(point + fraction).rstrip('0').rstrip('.')} {offset}"
