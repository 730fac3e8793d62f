"""A version of a secret in AWS's Secrets Manager, by AWS's own credentials and settings."""

from __future__ import annotations

import re

from botocore import exceptions
from botocore.config import Config
from botocore.session import Session

from ems.base.errors import DatabaseError
from ems.databases.aws import CREDENTIALS, MAY_PASS, SIGN_IN, SIGNATURE, THROTTLED
from ems.databases.postgresql.secret_versions import away, refused

CONFIG = Config(connect_timeout=5, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
BUSY = MAY_PASS | THROTTLED | {"InternalServiceError"}
RIGHT = "It takes secretsmanager:GetSecretValue on the secret, and kms:Decrypt if a key of your own encrypts it."
LOOK = "See which versions there are: aws secretsmanager list-secret-version-ids --secret-id ARN"


def read(name: str, found: re.Match[str]) -> bytes:
    """The secret of the version `name`, whose parts `found` has; errors are those of `password`."""
    named = {"SecretId": found["secret"], "VersionStage": found["stage"], "VersionId": found["id"]}
    try:
        client = Session().create_client("secretsmanager", found["region"], config=CONFIG)
        answer = client.get_secret_value(**{word: value for word, value in named.items() if value})
        client.close()
    except exceptions.ClientError as error:
        raise _refusal(error, name) from error
    except exceptions.BotoCoreError as error:
        raise _unreached(error, name) from error
    text: str | None = answer.get("SecretString")
    return bytes(answer["SecretBinary"]) if text is None else text.encode()


def _refusal(error: exceptions.ClientError, name: str) -> DatabaseError:
    code = error.response["Error"].get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in BUSY or status >= 500:
        return away(name, error)
    if code in {"AccessDeniedException", "DecryptionFailure"}:
        return refused(name, error, RIGHT)
    return refused(name, error, SIGN_IN if code in SIGNATURE else LOOK)


def _unreached(error: exceptions.BotoCoreError, name: str) -> DatabaseError:
    passing = (exceptions.HTTPClientError, exceptions.ConnectionError)
    if isinstance(error, passing) and not isinstance(error, (*CREDENTIALS, exceptions.SSLError)):
        return away(name, error)
    return refused(name, error, SIGN_IN)
