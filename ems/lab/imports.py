"""Names that belong to rows which `ems import` brought in."""

from __future__ import annotations

from shlex import quote

from ems.base.errors import UserError
from ems.databases import Database


def refuse(database: Database, stack: str) -> None:
    """UserError if the newest experiment of `stack` was imported: no stack file may have its name."""
    found = database.newest([stack])
    if not (found and found[0].registration.imported):
        return
    old, new = (quote(f"stacks/Pulumi.{name}.yaml") for name in (stack, f"{stack}-new"))
    raise UserError(
        f"{stack} is the name of imported rows, which this stack file does not describe.",
        f"Give the stack file another name: git mv {old} {new}",
    )
