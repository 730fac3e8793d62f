"""The database's password in a secret store: `password_from=NAME` in the URL names the version that has it.

NAME is as the store's own tools write it: Google's `projects/PROJECT/secrets/SECRET/versions/VERSION`, by a number, an
alias or `latest` (`projects/PROJECT/locations/REGION/secrets/…` for a regional one); AWS's
`arn:aws:secretsmanager:REGION:ACCOUNT:secret:SECRET`, alone or with `:KEY:STAGE:ID` as ECS's task definitions have it.

It is read for each new connection: nothing is kept, and the password may change at any time. No message has what was
read in it, nor a NAME that is none, as that may be a password.
"""

from __future__ import annotations

import importlib
import json
import re
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from ems.base.errors import DatabaseError, DatabaseUnavailable, UserError

PARAMETER = "password_from="
GOOGLE = re.compile(r"projects/[\w.:-]+(/locations/(?P<region>[\w-]+))?/secrets/[\w-]+/versions/[\w-]+", re.ASCII)
AWS = re.compile(  # RDS calls its own rds!…
    r"(?P<secret>arn:aws[\w-]*:secretsmanager:(?P<region>[\w-]+):\d{12}:secret:[\w/+=.@!-]+)"
    r"(:(?P<key>[^:]*):(?P<stage>[\w-]*):(?P<id>[\w-]*))?",
    re.ASCII,
)
STORES = {"secrets_google": ("bigquery", GOOGLE), "secrets_aws": ("dynamodb", AWS)}  # by module: extra, names
ALLOWED = (
    "Allowed: projects/PROJECT/secrets/SECRET/versions/VERSION of Google's Secret Manager; "
    "arn:aws:secretsmanager:REGION:ACCOUNT:secret:SECRET of AWS's, with :KEY:STAGE:ID behind it if need be."
)


def taken_out(url: str) -> tuple[str, str]:
    """`url` without the parameter, and the name in it, or ""; UserError if that is not the name of a secret version."""
    address, _, query = url.partition("?")
    parameters = query.split("&")
    names = [unquote(each.removeprefix(PARAMETER)) for each in parameters if each.startswith(PARAMETER)]
    if not names:
        return url, ""
    if len(names) > 1 or not any(pattern.fullmatch(names[0]) for pattern in (GOOGLE, AWS)):
        raise UserError("ems:database has a password_from that does not name one version of a secret.", ALLOWED)
    rest = "&".join(each for each in parameters if not each.startswith(PARAMETER))
    return f"{address}?{rest}" if rest else address, names[0]


def password(name: str) -> str:
    """DatabaseUnavailable while the store is away, DatabaseError for what a person must fix."""
    for module, (extra, pattern) in STORES.items():
        if found := pattern.fullmatch(name):
            key = found.groupdict().get("key") or "password"
            return _password(_reader(module, extra).read(name, found), name, key)
    raise AssertionError("taken_out gives names that one of them has")


def _reader(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(f"ems.databases.postgresql.{module}")
    except ImportError as error:
        raise UserError(
            f"The database's password is in a secret store, which takes a package that is not here: {error}.",
            f"pip install 'ems-experiments[{extra}]'",
        ) from error


def _password(secret: bytes, name: str, key: str) -> str:
    """The whole secret, without the line's end that `echo` leaves; of a JSON object, as RDS makes them, the `key`."""
    value: object = None
    with suppress(ValueError):  # neither UTF-8 nor JSON need it be; these errors have the secret in them
        value = text = secret.decode().rstrip("\r\n")
        if isinstance(whole := json.loads(text), dict):
            value = whole.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise DatabaseError(
            f"{name} is neither a password nor a JSON object that has one as {key!r}.",
            "Store a new version of the secret with the password alone, or name the KEY that has it.",
        )
    return value


def away(name: str, text: object) -> DatabaseUnavailable:
    """The error for a secret store that does not answer, which may pass; `text`: what went wrong."""
    message = f"The store that has the database's password does not answer: {name} ({_line(text)})."
    return DatabaseUnavailable(message, "Nothing was changed: try again.")


def refused(name: str, text: object, hint: str) -> DatabaseError:
    """The error for a password that cannot be read until a person has done what `hint` says."""
    return DatabaseError(f"The database's password cannot be read: {name} ({_line(text)}).", hint)


def _line(text: object) -> str:
    return " ".join(str(text).split())[:500].rstrip(".")
