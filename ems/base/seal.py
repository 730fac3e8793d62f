"""A tree that is made once and used by many: read-only, with a listing of its files, so that a change is noticed.

Whoever uses it next must get what was made, whatever its last user did to it: `pip install` in a job, a patched module,
a cache half removed. Paths, sizes and times tell, at 10 ms for each thousand files; their content is not read.
Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Union

LISTING = "ems-files.json"
BYTECODE = "__pycache__"  # where Python and numba add what they compiled, if they may write there

Fact = list[Union[int, str]]  # noqa: UP007 # of a file its size and time in ns, of a link where it leads


def seal(folder: Path) -> None:
    """List the files of a complete tree, and make all of it read-only."""
    (folder / LISTING).write_text(json.dumps(dict(_facts(folder))), encoding="utf-8")
    for path, _folders, files in os.walk(folder, topdown=False):
        for file in files:
            whole = Path(path, file)
            if not whole.is_symlink():
                whole.chmod(0o555 if whole.stat().st_mode & 0o100 else 0o444)
        Path(path).chmod(0o555)


def changes(folder: Path) -> list[str] | None:
    """Files of a sealed tree that were changed, removed or added since; None if it was never sealed."""
    try:
        then: dict[str, Fact] = json.loads((folder / LISTING).read_bytes())
    except (OSError, ValueError):
        return None
    now = dict(_facts(folder))
    added = {path for path in now.keys() - then.keys() if Path(path).parent.name != BYTECODE}
    return sorted(added | {path for path, fact in then.items() if now.get(path) != fact})


def _facts(folder: Path) -> Iterator[tuple[str, Fact]]:
    below, skipped = [str(folder)], len(str(folder)) + 1
    while below:
        with os.scandir(below.pop()) as entries:
            for entry in entries:
                path = entry.path[skipped:]
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif entry.is_symlink():
                    yield path, [str(Path(entry.path).readlink())]
                elif path != LISTING:
                    facts = entry.stat(follow_symlinks=False)
                    yield path, [facts.st_size, facts.st_mtime_ns]
