"""Exit codes with their meaning, from what `ems --help` prints, and the errors that lead to them, from their tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ems.base.errors import EmsError
from ems.cli.app import EXIT_CODES
from scripts.reference.markdown import code, table

INTRODUCTION = """# Exit codes

All commands share these exit codes. `ems check` ends with the greatest code of the faults that it found.
"""
PYTHON = """
In Python, `ems.results`, `ems.outputs`, `ems.progress` and `ems.watch` raise these errors, which all are
subclasses of `ems.base.errors.EmsError`.
"""


def page() -> str:
    known = errors()
    rows = [[str(number), text, ", ".join(map(code, known.get(number, [])))] for number, text in meanings().items()]
    return INTRODUCTION + "\n" + table(["code", "meaning", "errors"], rows) + PYTHON


def meanings() -> Mapping[int, str]:
    """`EXIT_CODES` has a line for each; a line may name further codes, as `130  interrupted; 141: …`."""
    lines = re.findall(r"^ +(\d+) +(.+)$", EXIT_CODES, re.MULTILINE)
    found = {}
    for number, text in lines:
        first, *others = re.split(r"; (?=\d+: )", text)
        found[int(number)] = first
        found |= {int(other): said for other, said in (part.split(": ", 1) for part in others)}
    return found


def errors() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for kind in kinds(EmsError):
        found.setdefault(kind.exit_code, []).append(kind.__name__)
    return found


def kinds(kind: type[EmsError]) -> Iterator[type[EmsError]]:
    """An error and all below it that `ems.base.errors` has."""
    if kind.__module__ == EmsError.__module__:
        yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)
