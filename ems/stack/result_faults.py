"""What concerns several keys of `results:` at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ems.base.messages import show
from ems.spool.endings import ENDINGS, type_of

OF_COMMANDS = ("columns", "files", "format", "stdout")


def problems(job: Mapping[Any, Any], results: Mapping[Any, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where below `results`, and what, whatever else is wrong with them."""
    if "files" in results and results["files"] in ([], ()):
        yield ("files",), "is an empty list: allowed is to name files, as [final_results.txt], or to leave it out"
    if "function" in job:
        for key in OF_COMMANDS:
            if results.get(key):
                said = "a function's values have types" if key == "columns" else "a function returns its rows"
                yield (key,), f"is for the results files of a command: {said}, so allowed is to leave it out"
        return
    if job.get("protocol") == "lines":
        for key in ("files", "format", "stdout"):
            if results.get(key):
                yield (key,), "is for programs that end: with `protocol: lines` answers are the rows; leave it out"
        return
    form = results.get("format") if isinstance(results.get("format"), dict) else {}
    assert isinstance(form, dict)
    yield from _nameless(results.get("files"), form.get("type"))
    columns = results.get("columns")
    for name, type_ in (form.get("columns") or {}).items() if isinstance(form.get("columns"), dict) else ():
        if isinstance(columns, dict) and columns.get(name, type_) != type_:
            problem = f"is {show(type_)}, but {show(columns[name])} under results.columns: allowed is to say it once"
            yield ("format", "columns", name), problem


def _nameless(files: object, form: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Patterns that do not say what their files are, where nothing else says it; and those that come twice."""
    seen: set[str] = set()
    for place, name in enumerate(files if isinstance(files, list | tuple) else ()):
        if not isinstance(name, str):
            continue
        if name in seen:
            yield ("files", place), f"is {show(name)}, which is listed before: allowed is each pattern once"
        elif not type_of(name) and not form:
            endings = ", ".join(ENDINGS)
            problem = f"is {show(name)}, whose ending says no form ({endings}): say it, as format: {{type: csv}}"
            yield ("files", place), problem
        seen.add(name)
