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


def told(folder: Path, found: Sequence[FileLeft], table: str, printed: str = "") -> list[str]:
    """Lines that say how to have files of `folder` stored in `table`; without any such file, what else to say.

    `printed`: what the job printed, or the beginning of that: it may be rows, too.
    """
    groups = list(_groups(folder, found))
    forms = {pattern: form for pattern, path in groups if (form := _form(path)) is not None}
    if forms:
        form = max(forms.values())
        patterns = [pattern for pattern, other in forms.items() if other in (form, Form())][:MOST_PATTERNS]
        return _declaring(table, f"files: [{', '.join(map(_quoted, patterns))}]", form)
    if (form := _form_of_output(_lines_of(printed))) is not None:
        return _declaring(table, f"stdout: {form.type}", form._replace(type=""))
    wrong = next((line for _, path in groups if (line := _printed(path.name, _lines(path)))), "")
    wrong = wrong or _printed("Standard output", _lines_of(printed))
    return [*filter(None, [wrong]), "A job without rows says so in its stack file, as `results: none`."]


def _declaring(table: str, where: str, form: Form) -> list[str]:
    return [
        "To have rows, say in the stack file where they are:",
        "    results:",
        f"      table: {table}",
        f"      {where}",
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
    form = _form_of_table(lines, DELIMITERS.get(path.suffix.lower(), ","))
    if form is None:
        return Form() if known else None
    return form._replace(type="") if known else form


def _form_of_table(lines: Sequence[str], usual: str) -> Form | None:
    """None if no sign separates cells; the `usual` one is not told."""
    rows = [line for line in lines if not line.startswith("#")] or lines
    delimiter = next((sign for sign in ",\t;| " if _separates(sign, rows)), "")
    if not delimiter:
        return None
    first = _cells(rows[0], delimiter)
    named = not any(map(is_number, first)) or len(rows) < len(lines)
    return Form("csv", "" if delimiter == usual else delimiter, 0 if named else len(first))


def _form_of_output(lines: Sequence[str]) -> Form | None:
    """Of what was printed: people print sentences, too, so a table has two lines or more, with numbers in the last."""
    if lines and all(map(_is_object, lines)):
        return Form("jsonl")
    if len(lines) < 2 or any(map(literal, lines)) or (form := _form_of_table(lines, ",")) is None:
        return None
    return form if any(map(is_number, _cells(lines[-1], form.delimiter or ","))) else None


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


def beginning(file: Path, start: int = 0) -> str:
    """The first lines of a file, from a byte of it on; "" of what is not text, or not there."""
    try:
        with file.open("rb") as opened:
            opened.seek(start)
            data = opened.read(SNIFFED_BYTES)
        return (data[: data.rfind(b"\n") + 1] if len(data) == SNIFFED_BYTES else data).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _lines(path: Path) -> list[str]:
    """The first complete lines, without blank ones; none of what is not text."""
    return _lines_of(beginning(path))


def _lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()][:SNIFFED_LINES] if "\0" not in text else []


def _printed(where: str, lines: Sequence[str]) -> str:
    """What to change in a program that printed Python's own text of its rows."""
    line = next((line for line in lines if literal(line)), "")
    return f"{where} has a {literal(line)} of Python in each line. {fix(literal(line), ',')}" if line else ""


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
