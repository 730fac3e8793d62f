"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer

PANELS = (START, RUN, LOOK, READ, CLEAN_UP) = ("Start", "Run", "Look", "Read", "Clean up")
"""How `ems --help` groups commands, in its order."""


def _name(given: str) -> str:
    """A stack's name, also where its file was given, as a shell completes it."""
    found = re.fullmatch(r"(.*/)?Pulumi\.(.+)\.ya?ml", given)
    return found[2] if found else given


def _names(given: list[str] | None) -> list[str] | None:
    return given and [_name(each) for each in given]


Stack = Annotated[str, typer.Argument(help="Name of a stack: stacks/Pulumi.STACK.yaml.", callback=_name)]
Stacks = Annotated[
    list[str] | None, typer.Argument(help="Names of stacks; default: all.", show_default=False, callback=_names)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]
