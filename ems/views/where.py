"""Conditions on rows as people write them: `theta >= 1.5`, `label = "a b"`, `x is null`."""

from __future__ import annotations

import re
from typing import cast

from ems.base.errors import UserError
from ems.databases import Condition, Operator
from ems.spool.batch import Value

QUOTED = r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*')"""
BARE = r"""[^\s=!<>'"]+"""
CONDITION = re.compile(
    rf"""\s*(?P<column>{QUOTED}|{BARE})
    (?: \s* (?P<operator>!=|<=|>=|=|<|>) \s* (?P<value>{QUOTED}|{BARE})
      | \s+ is (?P<no>\s+not)? \s+ null
    ) \s*""",
    re.VERBOSE | re.IGNORECASE,
)
INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
FLOAT = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf)", re.IGNORECASE)
WORDS: dict[str, Value] = {"true": True, "false": False, "null": None}
GRAMMAR = """Allowed:
  COLUMN OPERATOR VALUE     operators: = != < <= > >=
  COLUMN is null            COLUMN is not null
VALUE is a number, "text" or 'text', true or false; COLUMN a name, in quotes if it has spaces or operators in it.
Give several conditions one by one: all of them must hold. In a shell each needs quotes: --where 'theta >= 1.5'"""


def parse(text: str) -> Condition:
    """The condition that `text` says. UserError, with the grammar, if it is not one, or compares with null."""
    found = CONDITION.fullmatch(text)
    if found is None:
        raise UserError(f"{text!r} is not a condition.", GRAMMAR)
    column, operator, value, negated = found.group("column", "operator", "value", "no")
    if operator is None:
        return Condition(_unquoted(column), "!=" if negated else "=", None)
    parsed = _value(text, value)
    if parsed is None:
        raise UserError(f"{text!r}: nothing equals null, or is in any order with it.", GRAMMAR)
    return Condition(_unquoted(column), cast(Operator, operator), parsed)


def _value(text: str, value: str) -> Value:
    if value[0] in "\"'":
        return _unquoted(value)
    if value.lower() in WORDS:
        return WORDS[value.lower()]
    if INTEGER.fullmatch(value):
        return int(value)
    if FLOAT.fullmatch(value):
        return float(value)
    raise UserError(f"{text!r}: {value!r} is not a value. If it is text, put it in quotes.", GRAMMAR)


def _unquoted(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote) if quote in "\"'" else text
