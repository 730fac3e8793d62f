"""How to declare what a job left, so that it becomes rows: lines of a stack file, as far as the files tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from ems.node.agent.leftovers import IN_RESULTS, FileLeft
from ems.node.job.cells import is_number
from ems.node.job.literals import fix, literal
from ems.spool.endings import DELIMITERS, RESULTS, type_of

TEXT = frozenset(("", ".txt", ".dat", ".data", ".out", ".tab", ".csv", ".tsv"))  # endings of what may be a table
SNIFFED_BYTES, SNIFFED_LINES = 65_536, 50
MOST_PATTERNS = 20
PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./*-]*")


class Form(NamedTuple):
    """What `format` must say of a file; all empty: nothing."""

    type: str = ""
    delimiter: str = ""
    header: int = 0  # how many names


def told(folder: Path, found: Sequence[FileLeft], table: str) -> list[str]:
    """Lines that say how to have files of `folder` stored in `table`; without any such file, what else to say."""
    groups = list(_groups(folder, found))
    forms = {pattern: form for pattern, path in groups if (form := _form(path)) is not None}
    if not forms:
        wrong = next((line for _, path in groups if (line := _printed(path))), "")
        return [*filter(None, [wrong]), "A job without rows says so in its stack file, as `results: none`."]
    form = max(forms.values())
    patterns = [pattern for pattern, other in forms.items() if other in (form, Form())][:MOST_PATTERNS]
    return [
        "To have rows, say in the stack file where they are:",
        "    results:",
        f"      table: {table}",
        f"      files: [{', '.join(map(_quoted, patterns))}]",
        *([f"      format: {{{_said(form)}}}"] if form != Form() else []),
        "A job without rows says `results: none`.",
    ]


def _groups(folder: Path, found: Sequence[FileLeft]) -> Iterator[tuple[str, Path]]:
    """Patterns of files that may be tables, each with one of its files."""
    alike: dict[tuple[str, str], list[PurePath]] = {}
    for path in (PurePath(each["name"]) for each in found if each["bytes"] and not each["name"].endswith(("/", "…"))):
        if type_of(path) or path.suffix.lower() in TEXT:
            alike.setdefault((str(path.parent), path.suffix), []).append(path)
    for (parent, suffix), paths in alike.items():
        name = str(paths[0]) if len(paths) == 1 else str(PurePath(parent, f"*{suffix}"))
        pattern = RESULTS + name.removeprefix(f"{IN_RESULTS}/") if name.startswith(f"{IN_RESULTS}/") else name
        yield pattern, folder / paths[0]


def _form(path: Path) -> Form | None:
    """None if it cannot be read as results."""
    known = type_of(path)
    if known and known != "csv":
        return Form()
    lines = _lines(path)
    if lines and not known and all(map(_is_object, lines)):
        return Form("jsonl")
    if not lines or any(map(literal, lines)):
        return None
    rows = [line for line in lines if not line.startswith("#")] or lines
    delimiter = next((sign for sign in ",\t;| " if _separates(sign, rows)), "")
    if not delimiter:
        return Form() if known else None
    first = _cells(rows[0], delimiter)
    named = not any(map(is_number, first)) or len(rows) < len(lines)
    usual = DELIMITERS.get(path.suffix.lower(), ",")
    return Form("" if known else "csv", "" if delimiter == usual else delimiter, 0 if named else len(first))


def _cells(line: str, delimiter: str) -> list[str]:
    return line.split() if delimiter == " " else line.split(delimiter)


def _separates(delimiter: str, rows: Sequence[str]) -> bool:
    """Whether it makes columns of them: between words there are blanks too, between numbers only in a table."""
    counts = {len(_cells(row, delimiter)) for row in rows}
    if len(counts) > 1 or counts <= {0, 1}:
        return False
    return delimiter != " " or all(map(is_number, _cells(rows[-1], delimiter)))


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lines(path: Path) -> list[str]:
    """The first complete lines, without blank ones; none of what is not text."""
    try:
        with path.open("rb") as file:
            data = file.read(SNIFFED_BYTES)
        text = data[: data.rfind(b"\n") + 1].decode("utf-8") if len(data) == SNIFFED_BYTES else data.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [line for line in text.splitlines() if line.strip()][:SNIFFED_LINES] if "\0" not in text else []


def _printed(path: Path) -> str:
    """What to change in a program that printed Python's own text of its rows."""
    line = next((line for line in _lines(path) if literal(line)), "")
    return f"{path.name} has a {literal(line)} of Python in each line. {fix(literal(line), ',')}" if line else ""


def _said(form: Form) -> str:
    names = ", ".join(f"c{number}" for number in range(1, form.header + 1))
    said = {
        "type": form.type,
        "delimiter": form.delimiter and json.dumps(form.delimiter),
        "header": names and f"[{names}]",
    }
    return ", ".join(f"{key}: {value}" for key, value in said.items() if value)


def _quoted(pattern: str) -> str:
    return pattern if PLAIN.fullmatch(pattern) else json.dumps(pattern, ensure_ascii=False)
