"""Placeholders in the words of a command: `--out=run-{seed}.csv`. A doubled brace stands for one brace.

Standard library alone, Python 3.9 or newer: what is shipped with every sweep.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

RESULTS = "results"  # the folder for a point's results files
_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z][A-Za-z0-9_]*)\}|[{}]")
_PLAIN = re.compile(r"\{\{results\}\}|\{results\}")  # of a command that is no grid, other braces stand for themselves


@dataclass(frozen=True)
class Name:
    """Where the text of a value comes."""

    name: str


Piece = Union[str, Name]  # noqa: UP007  (evaluated when imported: Python 3.9 knows no `|` here)


def parse(text: str) -> list[Piece]:
    """The pieces of a word. ValueError at a brace that is neither doubled nor of a placeholder: "has a lone `{` …"."""
    pieces: list[Piece] = []
    end = 0
    for found in _PIECE.finditer(text):
        pieces.append(text[end : found.start()])
        end = found.end()
        if found[1]:
            pieces.append(Name(found[1]))
        elif len(found[0]) == 2:
            pieces.append(found[0][0])
        else:
            raise ValueError(
                f"has a lone `{found[0]}`: allowed is a placeholder, as {{lr}}; double a brace: `{2 * found[0]}`"
            )
    pieces.append(text[end:])
    return [piece for piece in pieces if piece]


def names(text: str) -> list[str]:
    """The names in the placeholders of a word. ValueError as of `parse`."""
    return [piece.name for piece in parse(text) if isinstance(piece, Name)]


def filled(pieces: list[Piece], texts: Mapping[str, str]) -> str:
    """The word. KeyError with the name of a placeholder that has no text."""
    return "".join(texts[piece.name] if isinstance(piece, Name) else piece for piece in pieces)


def in_plain(word: str, results: str) -> str:
    """A word of a command without a grid: `{results}` alone is a placeholder; `{{results}}` stands for that text."""
    return _PLAIN.sub(lambda found: results if found[0] == "{results}" else "{results}", word)


def text_of(value: object) -> str:
    """A value as a program reads it: text as it is, true or false, a double by its shortest digits that are exact."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
