"""What a stack file may say of a server, besides `kind: server`.

In the place's own stack these are its defaults; an experiment that names the place may say some otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from ems.base.messages import show
from ems.clusters.openssh import NAME
from ems.stack.checks import Checked, one_line
from ems.stack.models import Title, Workers
from ems.stack.strict import Strict

LOGINS = ("unattended", "person")


def _check_host(value: object) -> str:
    text = one_line(value, "what `ssh` takes, as me@server")
    if not NAME.fullmatch(text):
        raise ValueError(f"is {show(text)}: allowed is what `ssh` takes, as me@server")
    return text


def _check_login(value: object) -> str:
    text = one_line(value, " or ".join(LOGINS))
    if text not in LOGINS:
        raise ValueError(f"is {show(text)}: allowed is {' or '.join(LOGINS)}")
    return text


HostName = Annotated[str, Checked(_check_host, {"type": "string", "pattern": f"^{NAME.pattern}$"})]
Login = Annotated[str, Checked(_check_login, {"type": "string", "enum": [*LOGINS]})]


class Settings(Strict):
    """The keys of a server."""

    host: HostName | None = Field(
        None, description="Its name for `ssh`: an alias of ~/.ssh/config, USER@HOST or ssh://USER@HOST:PORT."
    )
    login: Login | None = Field(
        None,
        description="How one logs in: `unattended`, by a key or Kerberos, or `person`, by a password or a second "
        "factor, for which `ems login` asks; left out: unattended.",
    )
    work_dir: Title | None = Field(
        None, description="Folder there for runs and environments; left out: ems, in the home folder."
    )
    environments_dir: Title | None = Field(
        None, description="Folder there for archives of environments, which a group may share; left out: in `work_dir`."
    )
    workers: Workers | None = Field(
        None, description="How many processes compute at once; left out: one for each CPU of the server."
    )


@dataclass(frozen=True)
class Wanted:
    """The settings of one run."""

    host: str
    unattended: bool
    work_dir: str
    environments_dir: str
    workers: int


def wanted(*said: Mapping[str, Any]) -> Wanted:
    """What holds of settings as their JSON says them, those that count most first."""

    def first(key: str, default: Any) -> Any:
        return next((each[key] for each in said if each.get(key) is not None), default)

    return Wanted(
        host=first("host", ""),
        unattended=first("login", LOGINS[0]) == LOGINS[0],
        work_dir=first("work_dir", "ems"),
        environments_dir=first("environments_dir", ""),
        workers=first("workers", 0),
    )
