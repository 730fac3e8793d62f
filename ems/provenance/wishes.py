"""What an environment's `requirements.in` says, and whether its lock has it. Pure.

The lock alone decides what is built; the wishes are what it is written from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

NO_INDEX = re.compile(r"(-r|-c|-e|--requirement|--constraint|--editable)\b")  # the lock shows what came of them
_COMMENT = re.compile(r"(^|\s)#.*$")


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first line: continuations joined, comments and blank lines gone."""
    start, parts = 0, list[str]()
    for number, raw in enumerate([*text.splitlines(), ""], start=1):
        said = _COMMENT.sub("", raw).rstrip()
        start = start if parts else number
        parts.append(said.removesuffix("\\"))
        if not said.endswith("\\"):
            joined = " ".join(" ".join(parts).split())
            if joined:
                yield start, joined
            parts = []


def options(text: str) -> Iterator[tuple[int, str]]:
    """What holds when the lock is written and not when it is built, with its line."""
    for number, line in lines(text):
        if line.startswith("-") and not NO_INDEX.match(line):
            option = re.split(r"[\s=]", line)[0]
            yield (
                number,
                f"{option!r} would hold for the lock and not for what is built from it: allowed are packages; give it "
                "to both by uv's variables, as UV_INDEX=URL, UV_DEFAULT_INDEX=URL, UV_FIND_LINKS=FOLDER",
            )


def missing(text: str, pinned: Mapping[str, set[str]]) -> Iterator[tuple[int, str]]:
    """Wishes that a lock with the versions `pinned`, by canonical name, does not fulfil, with their lines."""
    for number, line in lines(text):
        try:
            wish = Requirement(line)
        except InvalidRequirement:
            continue  # options, files and addresses
        versions = pinned.get(canonicalize_name(wish.name), set())
        if wish.marker is None and not versions:
            yield number, f"wishes {wish.name}, which the lock does not have"
        elif versions and not any(wish.specifier.contains(version, prereleases=True) for version in versions):
            yield number, f"wishes {wish.name}{wish.specifier}, but the lock has {', '.join(sorted(versions))}"
