"""The kinds of values under `results:` of a stack file: patterns of files, how a CSV file is written. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from ems.base.messages import show
from ems.spool.endings import RESULTS, TYPES
from ems.stack.checks import Checked, one_line, one_of
from ems.stack.fields import COLUMN

_FILE = "a path or pattern below the job's working directory, as out/*.csv, or {results}/NAME in $EMS_RESULTS_DIR"


def _check_file(value: object) -> str:
    text = one_line(value, _FILE)
    name = text.removeprefix(RESULTS)
    parts = PurePosixPath(name).parts
    problem = (
        "starts with `/` or `~`"
        if name.startswith(("/", "~"))
        else "leaves it by `..`"
        if ".." in parts
        else "is a folder: name its files"
        if name.endswith("/")
        else ""
        if parts
        else "names nothing"
    )
    if problem:
        raise ValueError(f"is {show(text)}, which {problem}: allowed is {_FILE}")
    return text[: len(text) - len(name)] + str(PurePosixPath(name))


def _check_delimiter(value: object) -> str:
    allowed = 'one character of ASCII in quotes, as ";", "\\t" or " " (any run of blanks)'
    text = value if value == "\t" else one_line(value, allowed)
    if not isinstance(text, str) or len(text) != 1 or not text.isascii() or text.isalnum() or text in "\"'.+-_#":
        raise ValueError(f"is {show(value)}: allowed is {allowed}, but no letter, digit, quote or `. + - _ #`")
    return text


def _check_header(value: object) -> tuple[str, ...]:
    allowed = "a list of names of columns, as [n, loss]"
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"is {show(value)}: allowed is {allowed}")
    names = tuple(COLUMN.check(name) for name in value)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"has {show(twice[0])} twice: allowed is {allowed}")
    return names


FILE = Checked(_check_file, {"type": "string", "minLength": 1})
DELIMITER = Checked(_check_delimiter, {"type": "string", "minLength": 1, "maxLength": 1})
HEADER = Checked(_check_header, {"type": "array", "items": {"type": "string"}, "minItems": 1})
TYPE = one_of(TYPES)
OUTPUT = one_of(("jsonl", "csv"))
