"""What the pages of the manual have: links, headings, code, the commands that they show."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:(?<=\n\n) {4}.*\n(?:(?: {4}.*)?\n)*)")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SEPARATORS = re.compile(r"&&|\||;| · ")


@dataclass(frozen=True)
class Page:
    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """All but blocks of code."""
        return INDENTED.sub("\n", FENCED.sub("", self.text) + "\n")

    def blocks(self, language: str) -> list[str]:
        return [block for found, block in FENCED.findall(self.text) if found == language]

    def inline(self) -> list[str]:
        return [" ".join(code.split()) for code in INLINE.findall(self.prose)]

    def code(self) -> Iterator[str]:
        """Each line of a block and each piece of inline code."""
        outside = FENCED.sub("", self.text) + "\n"
        for block in (*(block for _, block in FENCED.findall(self.text)), *INDENTED.findall(outside)):
            yield from (line.strip().removeprefix("$ ") for line in block.splitlines())
        yield from self.inline()

    def links(self) -> list[str]:
        """Targets of links and images, in order."""
        return LINK.findall(INLINE.sub("", self.prose))

    def anchors(self) -> set[str]:
        """Of its headings, by GitHub's rule: a heading that comes again gets a number."""
        seen: Counter[str] = Counter()
        found = set()
        for heading in re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE):
            slug = slug_of(heading)
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
        return found


def slug_of(heading: str) -> str:
    shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-")


def pages() -> list[Page]:
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [Page(path) for path in (*top, *sorted((ROOT / "docs").rglob("*.md")))]


def calls(page: Page, program: str) -> Iterator[list[str]]:
    """The words of each call of a program that a page shows, without comments."""
    for line in page.code():
        for part in SEPARATORS.split(line):
            words = words_of(part)
            if words and words[0] == program:
                yield words


def words_of(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # as `it's`: no call of a program
        return line.split()
