"""Reading YAML as Pulumi reads it (Go's YAML, version 3), with the line of each key.

PyYAML only tokenises: its own reading of plain scalars is YAML 1.1 (`yes` is true, `1e-3` is text).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from ems.base.errors import Fault, StackFileError
from ems.base.messages import UnquotedDate, plain, show
from ems.stack.checks import NUMBER
from ems.stack.keys import Location

MOST_BYTES = 1_000_000
MOST_LEVELS = 20
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_WORDS: dict[str, object] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], math.nan),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], math.inf),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], -math.inf),
}
_WHOLE = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|([1-9][0-9]*|0))")
_DAY = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[Tt ]\d{1,2}:\d{1,2}:\d{1,2}\S*)?", re.ASCII)


@dataclass
class _Reader:
    """One pass over the events of a file; `lines` gets the line of each key and list item, counted from 1."""

    file: str
    events: Iterator[Event]
    lines: dict[Location, int] = field(default_factory=dict)

    def document(self) -> object:
        next(self.events)  # the stream begins
        started = next(self.events)
        if isinstance(started, yaml.StreamEndEvent):
            return None
        value = self.value(next(self.events), ())
        next(self.events)  # the document ends
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.refuse(after, "begins a second document: allowed is one, without `---` after the first line")
        return value

    def value(self, event: Event, at: Location) -> object:
        self.refuse_sharing(event)
        if isinstance(event, ScalarEvent):
            return scalar(event.value) if event.implicit[0] else event.value
        if len(at) >= MOST_LEVELS:
            self.refuse(event, f"is nested deeper than {MOST_LEVELS} levels: allowed are {MOST_LEVELS}")
        return self.mapping(at) if isinstance(event, MappingStartEvent) else self.sequence(at)

    def mapping(self, at: Location) -> dict[str, object]:
        found: dict[str, object] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            key = self.key(event)
            if key in found:
                first = self.lines[(*at, key)]
                self.refuse(event, f"has the key {plain(key)} again, as in line {first}: allowed is each key once")
            self.lines[(*at, key)] = _line(event)
            found[key] = self.value(next(self.events), (*at, key))
        return found

    def sequence(self, at: Location) -> list[object]:
        found: list[object] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            here = (*at, len(found))
            self.lines[here] = _line(event)
            found.append(self.value(event, here))
        return found

    def key(self, event: Event) -> str:
        self.refuse_sharing(event)
        if not isinstance(event, ScalarEvent):
            self.refuse(event, "has a list or a mapping as a key: allowed is text")
        key = scalar(event.value) if event.implicit[0] else event.value
        if not isinstance(key, str):
            self.refuse(event, f'has the key {event.value}, which is {show(key)}: quote it: "{event.value}"')
        return key

    def refuse_sharing(self, event: Event) -> None:
        if isinstance(event, AliasEvent):
            self.refuse(event, f"has the alias *{event.anchor}: write the value out, for Pulumi rewrites stack files")
        if isinstance(event, ScalarEvent | CollectionStartEvent):
            if event.anchor:
                self.refuse(
                    event, f"has the anchor &{event.anchor}: allowed are plain values, for Pulumi rewrites them"
                )
            if event.tag:
                self.refuse(event, f"has the tag {event.tag}: allowed are plain values, without tags")

    def refuse(self, event: Event, problem: str) -> NoReturn:
        raise StackFileError([Fault("", problem, self.file, _line(event))])


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def scalar(text: str) -> object:
    """The value of a plain scalar, as Go's YAML 3 takes it; a date or time without quotes is an UnquotedDate."""
    if text in _WORDS:
        return _WORDS[text]
    if _is_day(text):
        return UnquotedDate(text)
    digits = text.replace("_", "") if text[0] in "+-0123456789" else text
    if (whole := _WHOLE.fullmatch(digits)) and len(digits) <= 400:
        return _whole(*whole.groups(default=""))
    if NUMBER.fullmatch(digits) and math.isfinite(number := float(digits)):
        return number
    return text


def _whole(sign: str, sixteen: str, two: str, eight: str, ten: str) -> int:
    digits, base = next(found for found in ((sixteen, 16), (two, 2), (eight, 8), (ten, 10)) if found[0])
    value = int(digits, base)
    return -value if sign == "-" else value


def _is_day(text: str) -> bool:
    found = _DAY.fullmatch(text)
    if not found:
        return False
    year, month, day = map(int, found.groups())
    return 1 <= month <= 12 and 1 <= day <= _days_in(year, month)


def _days_in(year: int, month: int) -> int:
    return 31 if month == 12 else (date(max(year, 1), month + 1, 1) - date(max(year, 1), month, 1)).days


def read(path: Path) -> tuple[object, dict[Location, int]]:
    """The value of a YAML file and the lines of its keys. StackFileError has the one fault that prevents it."""
    text = _text(path)
    try:
        reader = _Reader(str(path), iter(yaml.parse(text, LOADER)))
        return reader.document(), reader.lines
    except yaml.MarkedYAMLError as error:
        raise StackFileError([_syntax_fault(path, error)]) from error
    except yaml.reader.ReaderError as error:
        character = int(error.character)
        line = text.count("\n", 0, text.index(chr(character))) + 1
        problem = f"has the character U+{character:04X}, which YAML does not allow: remove it"
        raise StackFileError([Fault("", problem, str(path), line)]) from error


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        problem = f"is larger than {MOST_BYTES:,} bytes, which no stack file needs: keep data in files of the code"
        raise StackFileError([Fault("", problem, str(path))])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8: byte {data[error.start]:#04x} at offset {error.start:,}; save it as UTF-8"
        raise StackFileError([Fault("", problem, str(path), line)]) from error


def _syntax_fault(path: Path, error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    said = ", ".join(part for part in (error.problem, error.context) if part)
    if mark is None:
        return Fault("", f"is not YAML: {said}", str(path))
    return Fault("", f"is not YAML: column {mark.column + 1}: {said}", str(path), mark.line + 1)
