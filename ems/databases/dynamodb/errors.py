"""DynamoDB's errors, as those of EMS: what may pass, and what a person must fix."""

from __future__ import annotations

import os
from difflib import get_close_matches

from botocore import exceptions
from botocore.session import Session

from ems.base.errors import DatabaseError, DatabaseUnavailable, NoTables
from ems.databases.aws import CREDENTIALS, MAY_PASS, SIGN_IN, SIGNATURE, THROTTLED

AGAIN = "Nothing was changed: try again."
CHECK = "See what you may do: ems database check"
CHANGED = frozenset({"ConditionalCheckFailedException", "ConditionalCheckFailed"})
AT_ONCE = frozenset({"TransactionConflictException", "TransactionConflict", "TransactionInProgressException"})


class Changed(Exception):
    """Somebody else wrote first: what this write was conditioned on does not hold any more."""


def codes(error: exceptions.ClientError) -> set[str]:
    """All that is wrong, by AWS's names."""
    reasons = error.response.get("CancellationReasons") or ()
    found = {str(reason["Code"]) for reason in reasons if reason.get("Code", "None") != "None"}
    return found or {str(error.response["Error"].get("Code"))}


def explained(error: exceptions.BotoCoreError | exceptions.ClientError, name: str, region: str) -> DatabaseError:
    """The error of EMS for one of AWS; DatabaseUnavailable if it may pass. `name`: the database's."""
    text = " ".join(str(error).split())
    if isinstance(error, exceptions.ClientError):
        return _refusal(codes(error), text, name)
    if isinstance(error, CREDENTIALS):
        return DatabaseError(f"The lab's database {name} needs AWS credentials, and there are none ({text}).", SIGN_IN)
    if isinstance(error, exceptions.SSLError):
        hint = "Check the endpoint's certificate; AWS_CA_BUNDLE names a file of those to trust."
        return DatabaseError(f"The lab's database {name} is not trusted ({text}).", hint)
    if isinstance(error, exceptions.EndpointConnectionError) and _is_unknown(region):
        return DatabaseError(f"{name}: AWS has no region {region!r} ({text}).", _regions_like(region))
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return DatabaseUnavailable(f"The lab's database {name} does not answer ({text}).", AGAIN)
    return DatabaseError(f"The lab's database {name} cannot be asked ({text}).", SIGN_IN)


def no_tables(name: str) -> DatabaseError:
    """The error for a database that lacks EMS's tables; `name`: the database's."""
    return NoTables(f"The lab's database has no tables yet: {name}.", "Make them: ems up lab")


def _refusal(found: set[str], text: str, name: str) -> DatabaseError:
    if "ResourceNotFoundException" in found:
        return no_tables(name)
    if found & {"AccessDeniedException", "AccessDenied"}:
        return DatabaseError(f"The lab's database {name} refuses what this role may not do ({text}).", CHECK)
    if found & SIGNATURE:
        return DatabaseError(f"The lab's database {name} does not accept these AWS credentials ({text}).", SIGN_IN)
    if found & (MAY_PASS | THROTTLED | AT_ONCE):
        return DatabaseUnavailable(f"The lab's database {name} does not answer: {text}.", AGAIN)
    return DatabaseError(f"The lab's database {name} refused a call ({text}).", "Report it with: ems doctor")


def _is_unknown(region: str) -> bool:
    return region not in _regions() and not any(name.startswith("AWS_ENDPOINT_URL") for name in os.environ)


def _regions() -> list[str]:
    session = Session()
    partitions = session.get_available_partitions()
    return [name for partition in partitions for name in session.get_available_regions("dynamodb", partition)]


def _regions_like(region: str) -> str:
    close = get_close_matches(region, _regions()) or ["eu-central-1", "us-east-1"]
    return f"Correct ems:database in Pulumi.yaml: dynamodb://REGION/PREFIX, as {', '.join(close)}."
