"""Results in JSON-lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from ems.node.job.line_files import LineFile
from ems.node.job.records import Record
from ems.spool.batch import Column


class JsonLinesFile(LineFile):
    """One JSON object a line, of numbers, text, booleans and nulls; NaN and Infinity are accepted."""

    hint = (
        "A column keeps the type of its first value; only whole numbers may be followed by other numbers. Write each "
        "value of {name!r} as the same type: text in quotes, also for whole numbers of more than 64 bits."
    )

    def _row(self, record: Record) -> dict[str, Any] | None:
        text = self._decode(record)
        if not text.strip():
            return None
        row = self._loaded(text, record.line)
        for name, value in row.items():
            if isinstance(value, (dict, list)) or not name:
                hint = "Values are numbers, text, booleans or null: give each element a column of its own."
                raise self._wrong(record.line, f"{name!r} is a nested value" if name else "a name is empty", hint)
            if name not in self._names:
                self._note(name, record.line)
        return row

    def _loaded(self, text: str, line: int) -> dict[str, Any]:
        try:
            row = _DECODER.decode(text)
            if isinstance(row, dict) and (math.inf in row.values() or -math.inf in row.values()):
                _STRICT.decode(text)
        except (ValueError, RecursionError) as error:
            self._refuse_literal(text, line)
            raise self._wrong(line, f"not a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise self._wrong(line, f"a JSON {type(row).__name__}, not an object", 'Write {"name": value, …}.')
        return row

    def _turned(self, rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
        present = {name for row in rows for name in row}
        for name in filter(present.__contains__, self._names):
            yield name, [row.get(name) for row in rows]

    def _column(self, name: str, values: list[Any]) -> Column | None:
        return self._types.typed(name, values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """ValueError for a name that comes twice, of which one value would be lost."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice")
    return row


def _finite(digits: str) -> float:
    """ValueError for a number beyond all doubles, of which nothing would be left but that it is large."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is beyond all doubles")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
_STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite)
