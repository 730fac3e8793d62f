"""A version of a secret in Google's Secret Manager, by its REST interface and application-default credentials."""

from __future__ import annotations

import base64
import os
import re

import google.auth
from google.auth import exceptions
from google.auth.transport.requests import AuthorizedSession
from requests import RequestException, Response

from ems.base.errors import DatabaseError
from ems.databases.postgresql.secret_versions import away, refused

ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"  # gcloud's own setting
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
TIMEOUT_S = 10
MAY_PASS = {408, 429, 500, 502, 503, 504}
LOGIN = "Log in: gcloud auth application-default login; or name a key file in GOOGLE_APPLICATION_CREDENTIALS."
RIGHT = "It takes roles/secretmanager.secretAccessor on the secret: gcloud secrets add-iam-policy-binding"
LOOK = "See which versions there are, and whether they are enabled: gcloud secrets versions list"


def read(name: str, found: re.Match[str]) -> bytes:
    """The secret of the version `name`, whose parts `found` has; errors are those of `password`."""
    service = f"secretmanager.{found['region']}.rep" if found["region"] else "secretmanager"
    endpoint = os.environ.get(ENDPOINT, f"https://{service}.googleapis.com").rstrip("/")
    try:
        credentials, _ = google.auth.default(scopes=SCOPES)
        with AuthorizedSession(credentials) as session:  # type: ignore[no-untyped-call]
            answer = session.get(f"{endpoint}/v1/{name}:access", timeout=TIMEOUT_S)
        if not answer.ok:
            raise _refusal(answer, name)
        return base64.b64decode(answer.json()["payload"]["data"])
    except RequestException as error:
        raise away(name, error) from error
    except exceptions.GoogleAuthError as error:
        raise _no_login(error, name) from error


def _refusal(answer: Response, name: str) -> DatabaseError:
    try:
        text = answer.json()["error"]["message"]
    except (RequestException, KeyError):  # what stands between may answer in its own words
        text = f"{answer.status_code} {answer.reason}"
    if answer.status_code in MAY_PASS:
        return away(name, text)
    return refused(name, text, RIGHT if answer.status_code in {401, 403} else LOOK)


def _no_login(error: exceptions.GoogleAuthError, name: str) -> DatabaseError:
    """What goes wrong on the way to the token may pass; on a cloud machine it is the cause of a RefreshError."""
    text = error.args[0] if error.args else error  # the others are Google's whole answer
    if error.retryable or any(isinstance(each, exceptions.TransportError) for each in (error, error.__cause__)):
        return away(name, text)
    return refused(name, text, LOGIN)
