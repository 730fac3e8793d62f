"""How a message speaks of values and names. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Say = Callable[[str], None]
"""How library code speaks to whoever called it: one sentence at a time."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
FRAME = re.compile(r'\s+File ".*", line \d+')  # of a traceback of Python's
ERROR = re.compile(r"Error( in .+)? ?:|error: (?!called from)")  # in R and Octave
AFTERWARDS = re.compile(r"Execution halted|error: called from")
MOST_COMPARED, MOST_LISTED = 2_000, 30  # names in one message: a lab may have thousands


LONG_NUMBER = "a whole number of more than 100 digits"


@dataclass(frozen=True)
class UnquotedDate:
    """A date or time that stands in a YAML file without quotes, as written there."""

    text: str


def show(value: object) -> str:
    """`value` for a message: short, printable, as it would be written in YAML."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict | list | tuple):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, UnquotedDate):
        return f"the date {value.text} without quotes"
    if isinstance(value, int) and value.bit_length() > 332:
        return LONG_NUMBER
    return "empty (null)" if value is None else str(value).lower()


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: what was meant, or what there is."""
    names = sorted(map(plain, known))
    if not names:
        return "there is none yet"
    written = {name.casefold(): name for name in names[:MOST_COMPARED]}
    close = difflib.get_close_matches(word[:100].casefold(), written, n=1)
    meant = f"did you mean {written[close[0]]}? " if close else ""
    return f"{meant}allowed are {some(names, MOST_LISTED)}"


def some(words: Sequence[str], most: int = 10) -> str:
    """The first words of a list, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def counted(number: int, noun: str) -> str:
    """As `1 row` or `1,200 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain(name: str) -> str:
    """A name as it is, or quoted where it could confuse the reader or the terminal."""
    return name if re.fullmatch(r"[A-Za-z0-9_.:-]{1,100}", name) else quoted(name)


def quoted(text: str) -> str:
    """Text in double quotes, of at most 60 characters, with what is not printable escaped."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return json.dumps(short, ensure_ascii=not short.isprintable())


def raised(text: str) -> str:
    """The line of a log's end or of an error that says what went wrong; "" if there is none.

    It is the first below the frames of the last traceback, which is seldom the last one: messages have several lines,
    and a program's buffered output comes after its traceback. Without a traceback, it is the last line, but for what R
    and Octave print after an error.
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    frames = [number for number, line in enumerate(lines) if FRAME.match(line)]
    below = (line for line in lines[frames[-1] :] if not line.startswith(" ")) if frames else iter(())
    return next(below, _last(lines)).strip()


def last_line(text: str) -> str:
    """The last line that has something in it; "" if none has."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _last(lines: Sequence[str]) -> str:
    """The last line, or that of an error above what R and Octave say of the calls that led to it."""
    errors = [number for number, line in enumerate(lines) if ERROR.match(line)]
    if not (errors and any(map(AFTERWARDS.match, lines[errors[-1] :]))):
        return lines[-1] if lines else ""
    line, *rest = lines[errors[-1] :]
    return f"{line} {rest[0].strip()}" if line.endswith(":") else line


def quiet(_sentence: str) -> None:
    """The `Say` that shows nothing."""


def visible(text: str) -> str:
    """`text` with its control characters as pictures (␛ for ESC), so that a terminal shows them and obeys none."""
    return CONTROL.sub(lambda found: _picture(ord(found[0])), text)


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
