"""Why a stack's experiment is another one than its last: what of its recorded identity differs, in a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ems.base.errors import ProvenanceError
from ems.base.messages import plain, some
from ems.databases import Registration
from ems.lab.repository import WorkTree
from ems.provenance import code as provenance
from ems.provenance.code import Code
from ems.provenance.registration import Resolved
from ems.stack.models import CodeSpec

MOST_FILES = 5
OF_FILE = ("job", "env", "inputs", "results")  # keys of the stack file that count


def told(tree: WorkTree, resolved: Resolved, last: Registration) -> str:
    """What differs from the `last` experiment of the stack, whose row has its spec; "" if that is not known."""
    before: Mapping[str, Any] = json.loads(last.spec)
    reasons = list(_reasons(tree, resolved, last, before))
    if not reasons:
        return ""
    hint = "" if resolved.code.paths or last.tree == resolved.row.tree else "; `code: {paths: […]}` narrows what counts"
    return f"another experiment than {last.id[:8]}, its last one, as {' and '.join(reasons)}{hint}"


def _reasons(tree: WorkTree, resolved: Resolved, last: Registration, before: Mapping[str, Any]) -> Iterator[str]:
    row = resolved.row
    if last.tree != row.tree:
        files = _files(tree, resolved.code, last, before.get("code") or {})
        yield f"its code differs: {files}" if files else "its code differs"
    if last.environment_digest != row.environment_digest:
        yield "its environment differs"
    if last.python != row.python:
        yield f"its Python was {last.python}"
    now = json.loads(row.spec)
    if keys := [key for key in OF_FILE if _counting(before, key) != _counting(now, key)]:
        yield f"its stack file differs: {', '.join(keys)}"


def _counting(spec: Mapping[str, Any], key: str) -> Any:
    """Into which table rows go does not count."""
    value = spec.get(key)
    return {**value, "table": ""} if key == "results" and isinstance(value, dict) else value


def _files(tree: WorkTree, code: Code, last: Registration, said: Mapping[str, Any]) -> str:
    """The files that differ; "" where the commit of the last one is gone."""
    try:
        old = provenance.at_commit(tree, CodeSpec.model_validate({**said, "commit": last.commit}), last.tree)
    except ProvenanceError:
        return ""
    was, now = ({file.path: (file.mode, file.blob) for file in each.files} for each in (old, code))
    differing = sorted(path for path in was.keys() | now.keys() if was.get(path) != now.get(path))
    return some([f"{plain_path(path)} ({_how(path, was, now)})" for path in differing], MOST_FILES)


def plain_path(path: str) -> str:
    """A path as it is, or quoted where it could confuse."""
    return path if all(plain(part) == part for part in path.split("/")) else plain(path)


def _how(path: str, was: Mapping[str, object], now: Mapping[str, object]) -> str:
    return "changed" if path in was and path in now else "new" if path in now else "gone"
