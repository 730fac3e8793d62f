"""Text that Python printed of a value of its own, `(1, 2, 0.5)`, where a row was meant."""

from __future__ import annotations

import ast
import re

_PAIRS = {"(": ")", "[": "]", "{": "}"}
_OF_NUMPY = re.compile(r"\b(?:np|numpy)\.\w+\(([^()]*)\)")  # as numpy 2 shows a number within a tuple
_NAMES = re.compile(r"(?<![\w'\"])-?(?:nan|inf)(?![\w'\"])")
_NUMBERS = re.compile(r"\[\s*[-+\d.][-+\d.eE\s]*\]")  # as numpy shows an array: no commas


def literal(text: str) -> str:
    """`tuple`, `list`, `dict` or `set`, if the line shows one; `array` for one of numpy; else ""."""
    text = text.strip()
    if len(text) < 2 or _PAIRS.get(text[0]) != text[-1]:
        return ""
    if _NUMBERS.fullmatch(text) and "," not in text and len(text.split()) > 1:
        return "array"
    try:
        value = ast.literal_eval(_NAMES.sub("0", _OF_NUMPY.sub(r"\1", text)))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    return type(value).__name__ if isinstance(value, tuple | list | dict | set) else ""


def fix(kind: str, delimiter: str) -> str:
    """What to write instead; without a `delimiter`, in JSON-lines."""
    if not delimiter:
        return 'Print json.dumps(row) of a dict: {"name": value, …}.'
    if kind == "dict":
        return "Print json.dumps(row), and say so: results: {format: {type: jsonl}}; or use csv.DictWriter."
    how = "print(*row)" if delimiter == " " else f"print(*row, sep={_quoted(delimiter)})"
    return f"Write its values alone: {how}, or the csv module: csv.writer(file).writerow(row)."


def _quoted(delimiter: str) -> str:
    return '"\\t"' if delimiter == "\t" else f'"{delimiter}"'
