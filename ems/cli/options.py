"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Stack = Annotated[str, typer.Argument(help="Name of a stack: stacks/Pulumi.STACK.yaml.")]
Stacks = Annotated[list[str] | None, typer.Argument(help="Names of stacks; default: all.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]
