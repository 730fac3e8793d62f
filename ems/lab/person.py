"""Who is at work here: as git knows them."""

from __future__ import annotations

from pathlib import Path

from ems.base.errors import UserError
from ems.base.messages import quoted, some
from ems.base.process import run
from ems.lab import Lab


def setting(root: Path, name: str) -> str:
    """One of git's, such as `user.email`; "" where it is not set."""
    return run(["git", "-C", root, "config", "--default", "", "--get", name]).removesuffix("\n")


def experimenter(lab: Lab) -> str:
    """The id of the experimenter whose e-mail address git has as `user.email`; UserError if there is none."""
    email = setting(lab.root, "user.email")
    with lab.database() as database:
        people = {row["email"].casefold(): row["id"] for row in database.rows("experimenter")}
    known = some(sorted(map(str, people.values()))) or "those in stacks/Pulumi.lab.yaml"
    hint = f"Name yourself: --experimenter ID, of {known}"
    if not email:
        raise UserError("Who you are is not known: git has no user.email.", hint)
    if email.casefold() not in people:
        raise UserError(f"No experimenter of the lab has the e-mail address {quoted(email)}, git's user.email.", hint)
    return str(people[email.casefold()])
