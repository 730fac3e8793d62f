"""The folders below the lab's in which its own package has modules, as src/: what has to be named in `env:`.

A lock that installs the package brings them along. Without one, Python is told by PYTHONPATH.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from ems.lab.place import repository_of
from ems.provenance import existing, packages

OWN = re.compile(r"\b(editable|directory)\b[\"']?\s*=")  # of a lock that installs packages from folders
NAME = "PYTHONPATH"


def of(root: Path) -> list[str]:
    """The folders that pyproject.toml names, and src."""
    try:
        said = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        said = {}
    return list(dict.fromkeys([*packages.named_roots(said), "src"]))


def of_function(root: Path, file: Path, module: str) -> dict[str, str]:
    """What `env:` has to say for a function of `module`, which is in `file`; {} if nothing."""
    folder = file.parents[module.count(".") + (file.name == "__init__.py")]
    return _said(root, [folder.relative_to(root).as_posix()] if folder != root else [])


def of_program(root: Path, words: Sequence[str]) -> dict[str, str]:
    """What `env:` has to say for a program of Python, by the modules that it imports; {} if nothing."""
    script = next((root / word for word in words if word.endswith(".py") and (root / word).is_file()), None)
    if script:
        needed, there = set(_imported(script)), script.parent
    else:
        needed, there = set(_run_as_module(words)), root
    lacking = [name for name in needed if not _has(there, name)]
    return _said(root, [each for each in of(root) if any(_has(root / each, name) for name in lacking)])


def _said(root: Path, folders: Sequence[str]) -> dict[str, str]:
    lock = existing.find(root, repository_of(root)).lock
    if not folders or (lock and OWN.search((root / lock).read_text(encoding="utf-8", errors="replace"))):
        return {}
    return {NAME: ":".join(folders)}


def _imported(script: Path) -> Iterator[str]:
    """The first words of the modules' names; none of a file that is no Python."""
    try:
        tree = ast.parse(script.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _run_as_module(words: Sequence[str]) -> Iterator[str]:
    """Of `python -m MODULE`."""
    for option, module in pairwise(words):
        if option == "-m":
            yield module.partition(".")[0]


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or any((folder / name).glob("*.py"))
