"""Names that belong to rows which `ems import` brought in."""

from __future__ import annotations

from contextlib import suppress
from shlex import quote

from ems.base.errors import DatabaseError, UserError
from ems.databases import Database
from ems.lab import Lab


def is_name(database: Database, stack: str) -> bool:
    """Whether the newest experiment of `stack` was imported."""
    found = database.newest([stack])
    return bool(found and found[0].registration.imported)


def refuse_new(lab: Lab, stack: str) -> None:
    """UserError if a new experiment is to have the name of imported rows, as far as the database can say now."""
    is_imported = False
    with lab.database() as database, suppress(DatabaseError):
        is_imported = is_name(database, stack)
    if is_imported:
        raise UserError(
            f"{stack} is the name of imported rows: ems status {quote(stack)}", "Choose another: ems new NAME"
        )


def refuse(database: Database, stack: str) -> None:
    """UserError if the newest experiment of `stack` was imported: no stack file may have its name."""
    if not is_name(database, stack):
        return
    old, new = (quote(f"stacks/Pulumi.{name}.yaml") for name in (stack, f"{stack}-new"))
    raise UserError(
        f"{stack} is the name of imported rows, which this stack file does not describe.",
        f"Give the stack file another name: git mv {old} {new}",
    )
