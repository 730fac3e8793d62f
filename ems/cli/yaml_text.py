"""Values as YAML that Pulumi and EMS read as the same values. Pure."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence

PLAIN = re.compile(r"(?!-+$)[A-Za-z/_.-][A-Za-z0-9/_.=+-]*")
TAKEN = re.compile(r"([-+]?\.?[0-9_.][0-9_.eE+-]*|[-+]?\.(inf|nan)|~|null|true|false|yes|no|on|off|y|n|=|<<)", re.I)
WIDTH = 110
Value = str | bool | int | float | None


def word(value: Value) -> str:
    """One value; text without quotes where that is the same."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and not TAKEN.fullmatch(value):
        return value
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(value: str) -> str:
    return f'"{"".join(map(_letter, value))}"'


def _letter(letter: str) -> str:
    """As YAML writes it between double quotes: also what ends a line there."""
    if letter in '"\\':
        return f"\\{letter}"
    code = ord(letter)
    return letter if letter.isprintable() else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def listed(values: Sequence[Value]) -> str:
    """A list on one line."""
    return f"[{', '.join(map(word, values))}]"


def axis(values: Sequence[Value]) -> str:
    """The values of a name in a grid: whole numbers at equal distances as a range, others as a list."""
    if len(values) > 5 and all(type(value) is int for value in values):
        first, second, *_, last = (int(value) for value in values)  # type: ignore[arg-type]
        step = second - first
        if step and list(values) == list(range(first, last + (1 if step > 0 else -1), step)):
            return f"{{range: [{first}, {last}, {step}]}}"
    return listed(values)


def entry(key: str, text: str, indent: int) -> list[str]:
    """The lines of `key: text`; a long list is broken after commas, unless its texts have spaces."""
    line = f"{' ' * indent}{key}: {text}"
    if len(line) <= WIDTH or re.search(r'"[^"]*\s', text):
        return [line]
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent="",
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def grid(axes: Mapping[str, str], indent: int, bullet: bool = False) -> list[str]:
    """The lines of a grid, {name: text of its values}; with `bullet` as a grid of a list."""
    lines = [line for key, text in axes.items() for line in entry(key, text, indent + 2 * bullet)]
    return [f"{' ' * indent}- {lines[0].lstrip()}", *lines[1:]] if bullet else lines
