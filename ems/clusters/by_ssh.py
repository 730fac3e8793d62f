"""What a stack file may say of a machine that is reached by SSH, whatever kind of place it is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ems.clusters.openssh import NAME
from ems.stack import checks
from ems.stack.strict import Strict

LOGINS = ("unattended", "person")
HostName = Annotated[str, checks.matching(NAME.pattern, "what `ssh` takes, as me@server")]
Login = Annotated[str, checks.one_of(LOGINS)]


class BySsh(Strict):
    """The keys by which it is reached."""

    host: HostName | None = Field(
        None, description="Its name for `ssh`: an alias of ~/.ssh/config, USER@HOST or ssh://USER@HOST:PORT."
    )
    login: Login | None = Field(
        None,
        description="How one logs in: `unattended`, by a key or Kerberos, or `person`, by a password or a second "
        "factor, for which `ems login` asks; left out: unattended.",
    )
