"""The pages of docs/reference, made from the code: `make reference` writes them, a test fails when they are stale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.reference import commands, exit_codes, json_shapes, stack_file, tables

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"
PAGES: Mapping[str, Callable[[], str]] = {
    "commands.md": commands.page,
    "stack-file.md": stack_file.page,
    "exit-codes.md": exit_codes.page,
    "json.md": json_shapes.page,
    "tables.md": tables.page,
}
NOTICE = "\n<!-- Generated from the code by `make reference` (scripts/reference). Do not edit this page. -->\n"


def render(name: str) -> str:
    """The text of one page, with the notice below its title."""
    title, _, rest = PAGES[name]().partition("\n")
    return f"{title}\n{NOTICE}{rest.rstrip()}\n"
