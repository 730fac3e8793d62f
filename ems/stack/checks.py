"""How one value of a stack file is checked, and how a message speaks of it. Pure.

A type is a `Checked`: one function that returns what is kept, or raises ValueError with the whole problem as a sentence
("is -1: allowed is a number above 0"), and a JSON Schema for editors.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ems.base.messages import LONG_NUMBER, UnquotedDate, nearest, show

NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
REWRITTEN_DATE = re.compile(r"(\d{4}-\d\d-\d\d) \d\d:\d\d:\d\d(\.\d+)? [-+]\d{4} \S+")  # as Go prints a time


@dataclass(frozen=True)
class Checked:
    """A type of value: `check` returns what is kept, or raises ValueError; `schema` is its JSON Schema."""

    check: Callable[[Any], Any]
    schema: dict[str, Any] = field(hash=False)  # unions of annotated types hash what annotates them

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema)


def text_of(value: object, allowed: str) -> str:
    """`value` if it is text; ValueError says how to write it otherwise."""
    match value:
        case str():
            if rewritten := REWRITTEN_DATE.fullmatch(value):
                raise ValueError(f'is the date {value} without quotes: quote it: "{rewritten[1]}"')
            return value
        case UnquotedDate():
            raise ValueError(f'is {show(value)}: quote it: "{value.text}"')
        case bool():
            raise ValueError(f'is {show(value)} (yes or no): allowed is {allowed}; quote it: "{show(value)}"')
        case int() | float():
            raise ValueError(f"is the number {show(value)}: allowed is {allowed}; quote it: {_as_text(value)}")
        case _:
            raise ValueError(f"is {show(value)}: allowed is {allowed}")


def _as_text(value: float) -> str:
    shown = show(value)
    return '"…"' if shown == LONG_NUMBER else f'"{shown}"'


def one_line(value: object, allowed: str, spared: str = "") -> str:
    """Text without control characters (but those `spared`) and lone surrogates; else ValueError."""
    text = text_of(value, allowed)
    for position, character in enumerate(text, start=1):
        if character not in spared and unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            where = f"{json.dumps(character)} at position {position}"
            raise ValueError(f"is {show(text)}, with the control character {where}: allowed is {allowed} without any")
    return text


def words(*, required: bool = False, lines: bool = False) -> Checked:
    """Text of one line, or with `lines` of several; `required` refuses blank text."""

    def check(value: object) -> str:
        text = one_line(value, "text", "\n\t" if lines else "")
        if required and not text.strip():
            raise ValueError(f"is {show(text)}: allowed is text that says something")
        return text

    return Checked(check, {"type": "string", "minLength": 1} if required else {"type": "string"})


def matching(pattern: str, allowed: str, refuse: Callable[[str], str | None] = lambda _: None) -> Checked:
    """Text that `pattern` describes as a whole; `refuse` may name a further problem of it."""

    def check(value: object) -> str:
        text = text_of(value, allowed)
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"is {show(text)}: allowed is {allowed}")
        if problem := refuse(text):
            raise ValueError(problem)
        return text

    return Checked(check, {"type": "string", "pattern": f"^{pattern}$"})


def one_of(words: Collection[str]) -> Checked:
    """One of these words; the refusal names the nearest."""

    def check(value: object) -> str:
        text = one_line(value, f"one of {', '.join(words)}")
        if text not in words:
            raise ValueError(f"is {show(text)}: {nearest(text, words)}")
        return text

    return Checked(check, {"type": "string", "enum": [*words]})


def number(*, low: float, high: float = math.inf, above: bool = False, whole: bool = False) -> Checked:
    """A number from `low` (or `above` it) to `high`; `whole` ones are kept as int, others as float."""
    allowed = _range(low, high, above, whole)

    def check(value: object) -> float:
        if isinstance(value, str) and NUMBER.fullmatch(value):
            raise ValueError(f"is the text {show(value)}: allowed is {allowed}; write it without quotes")
        kept = finite(value)
        fits = kept is not None and low <= kept <= high and not (above and kept == low)
        if kept is None or not fits or (whole and kept != int(kept)):
            raise ValueError(f"is {show(value)}: allowed is {allowed}")
        return int(kept) if whole else float(kept)

    schema = {"type": "integer" if whole else "number", "exclusiveMinimum" if above else "minimum": low}
    return Checked(check, schema if high == math.inf else schema | {"maximum": high})


def finite(value: object) -> float | None:
    """`value` if it is a finite number of at most 1,023 bits, and not a boolean; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value if value.bit_length() <= 1023 else None
    return value if math.isfinite(value) else None


def _range(low: float, high: float, above: bool, whole: bool) -> str:
    noun = "a whole number" if whole else "a number"
    start = f"above {low:,}" if above else f"of {low:,} or more"
    return f"{noun} {start}" if high == math.inf else f"{noun} {start}, up to {high:,}"
