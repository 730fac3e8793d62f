"""Reading YAML as Pulumi reads it (Go's YAML, version 3), with the line of each key. All YAML of a lab is read here.

PyYAML only tokenises: its own reading of plain scalars is YAML 1.1 (`yes` is true, `1e-3` is text). What its tokeniser
takes and Go's does not is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from ems.base.errors import Fault, StackFileError
from ems.base.messages import plain, show
from ems.stack.keys import Location
from ems.stack.scalars import scalar

MOST_BYTES = 1_000_000
MOST_LEVELS = 20
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ODD = re.compile(r"(?i:y|yes|n|no|on|off)|[-+]?0[0-7]+|[-+]?[0-9.]+[eE][-+]?[0-9]{3,}")
_ESCAPED_SLASH = re.compile(r"(?<!\\)(\\\\)*\\/")


@dataclass
class _Reader:
    """One pass over the events of a file; `lines` gets the line of each key and list item, counted from 1."""

    file: str
    text: str
    events: Iterator[Event]
    lines: dict[Location, int] = field(default_factory=dict)
    odd: dict[Location, str] = field(default_factory=dict)  # plain scalars that other readers take otherwise
    numbers: dict[Location, str] = field(default_factory=dict)  # as they are written
    in_brackets: bool = False

    def document(self) -> object:
        next(self.events)  # the stream begins
        started = next(self.events)
        if not isinstance(started, DocumentStartEvent):
            return None
        if started.version not in {None, (1, 1)}:
            self.refuse(started, "has a %YAML line of another version than 1.1, which Pulumi does not read: remove it")
        value = self.value(next(self.events), ())
        next(self.events)  # the document ends
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.refuse(after, "begins a second document: allowed is one, without `---` after the first line")
        return value

    def value(self, event: Event, at: Location) -> object:
        self.refuse_sharing(event)
        if isinstance(event, ScalarEvent):
            if event.implicit[0] and ODD.fullmatch(event.value):
                self.odd[at] = event.value
            found = self.scalar(event)
            if isinstance(found, int | float):
                self.numbers[at] = event.value
            return found
        if len(at) >= MOST_LEVELS:
            self.refuse(event, f"is nested deeper than {MOST_LEVELS} levels: allowed are {MOST_LEVELS}")
        around = self.in_brackets
        self.in_brackets = around or (isinstance(event, CollectionStartEvent) and bool(event.flow_style))
        inner = self.mapping(at) if isinstance(event, MappingStartEvent) else self.sequence(at)
        self.in_brackets = around
        return inner

    def scalar(self, event: ScalarEvent) -> object:
        if event.implicit[0]:
            if event.value == "<<" or (self.in_brackets and "?" in event.value):
                self.refuse(event, f"has {show(event.value)} without quotes, which Pulumi reads otherwise: quote it")
            return scalar(event.value)
        if event.style == '"' and _ESCAPED_SLASH.search(self.written(event)):
            self.refuse(event, "has the escape `\\/`, which Pulumi does not know: write `/`")
        return event.value

    def written(self, event: Event) -> str:
        start, end = event.start_mark, event.end_mark
        return self.text[start.index : end.index] if start and end else ""

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
        key = self.scalar(event)
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


def read(path: Path) -> tuple[object, dict[Location, int]]:
    """The value of a YAML file and the lines of its keys. StackFileError has the one fault that prevents it."""
    value, lines, _ = read_closely(path)
    return value, lines


def read_closely(path: Path) -> tuple[object, dict[Location, int], dict[Location, str]]:
    """The same, with the plain scalars that other readers of YAML take for something else, as they are written."""
    with path.open("rb") as file:
        value, reader = _parsed(file.read(MOST_BYTES + 1), path)
    return value, reader.lines, reader.odd


def parse(data: bytes, path: Path) -> tuple[object, dict[Location, int]]:
    """As `read`, of the content of the file at `path`, as it is or was."""
    value, reader = _parsed(data, path)
    return value, reader.lines


def parse_numbers(data: bytes, path: Path) -> tuple[object, dict[Location, str]]:
    """The value, and each number (or boolean) in it as it is written: `0.10`."""
    value, reader = _parsed(data, path)
    return value, reader.numbers


def _parsed(data: bytes, path: Path) -> tuple[object, _Reader]:
    text = _text(data, path)
    try:
        reader = _Reader(str(path), text, iter(yaml.parse(text, LOADER)))
        return reader.document(), reader
    except yaml.MarkedYAMLError as error:
        raise StackFileError([_syntax_fault(path, error)]) from error
    except yaml.reader.ReaderError as error:
        character = int(error.character)
        line = text.count("\n", 0, text.index(chr(character))) + 1
        problem = f"has the character U+{character:04X}, which YAML does not allow: remove it"
        raise StackFileError([Fault("", problem, str(path), line)]) from error


def _text(data: bytes, path: Path) -> str:
    if len(data) > MOST_BYTES:
        problem = f"is larger than {MOST_BYTES:,} bytes, which no such file needs: keep data in files of the code"
        raise StackFileError([Fault("", problem, str(path))])
    try:
        return data.decode("utf-8-sig")
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
