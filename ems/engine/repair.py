"""Pulumi's own files in a folder, made good: what a power cut left empty or cut, or somebody wrote over.

What derives from something else is made again in silence. A damaged state is set aside, and the newest copy of it that
reads takes its place. That may be a step behind, so it is told, as an error, once: what EMS creates and deletes may be
created and deleted again.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ems.base import aside
from ems.base.errors import EngineError
from ems.engine import manners


def repair(backend: Path, states: Iterable[Path]) -> None:
    """Have Pulumi able to read `states` and all else that it keeps in `backend`.

    EngineError for a state that was damaged: the command can be repeated; and for a file that cannot be read.
    """
    _repair_format(backend)
    for state in states:
        last_copy = manners.copies(state)[0]
        for file in (state, last_copy):
            _drop_damaged(manners.attributes(file))
        if last_copy.is_dir():
            _set_aside(last_copy)
        if state.is_dir() or (state.exists() and not _is_state(state)):
            raise _replaced(state)


def _repair_format(backend: Path) -> None:
    file, content = manners.format_file(backend)
    _drop_damaged(manners.attributes(file))
    if file.is_dir():
        _set_aside(file)
    if (backend / "stacks").is_dir() and not re.search(rb"^version: *\d", _content(file), re.MULTILINE):
        aside.write(file, content)


def _drop_damaged(attributes: Path) -> None:
    if attributes.is_dir():
        shutil.rmtree(attributes)
    elif attributes.exists() and not isinstance(_json(attributes), dict):
        attributes.unlink()


def _replaced(state: Path) -> EngineError:
    """Have the newest copy that reads in place of a damaged state; the error that tells so."""
    copy = next((copy for copy in manners.copies(state) if copy.is_file() and _is_state(copy)), None)
    content = copy.read_bytes() if copy else b""
    damaged = _set_aside(state)
    manners.attributes(state).unlink(missing_ok=True)
    if copy:
        aside.write(state, content)
        done = f"Its last copy, {copy.name}, has taken its place"
    else:
        done = "No copy of it reads, so the stack begins anew"
    hint = f"{done}. Repeat the command; then `ems teardown {state.stem} --dry-run` shows what it holds."
    return EngineError(f"Pulumi's state of stack {state.stem} was damaged; it is kept as {damaged}.", hint)


def _set_aside(file: Path) -> Path:
    damaged = file.with_name(f"{file.name}.damaged-{time.time_ns()}")
    return file.rename(damaged)


def _is_state(file: Path) -> bool:
    kept = _json(file)
    return isinstance(kept, dict) and isinstance(kept.get("checkpoint"), dict)


def _json(file: Path) -> object:
    with suppress(ValueError):
        return json.loads(_content(file))
    return None


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        hint = f"Make it readable for you, then repeat the command: ls -l {file}"
        raise EngineError(f"Pulumi's file {file} cannot be read: {error.strerror}.", hint) from error
