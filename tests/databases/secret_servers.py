"""Stand-ins for Google's and AWS's Secret Manager, and for what tells machines who they are, on loopback.

They answer as both document it, with the errors of `FAULTS`, for one secret, whose versions the test fills.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOGLE = "projects/lab/secrets/db/versions/"
ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:lab/db-AbCdEf"
FAULTS = {  # what Google says, what AWS says
    "denied": (
        (403, "PERMISSION_DENIED", "Permission 'secretmanager.versions.access' denied (or it may not exist)."),
        (400, "AccessDeniedException", "User: lab is not authorized to perform: secretsmanager:GetSecretValue"),
    ),
    "off": (
        (400, "FAILED_PRECONDITION", "Secret Version [1] is in DISABLED state."),
        (
            400,
            "InvalidRequestException",
            "You can't perform this operation because the secret was marked for deletion.",
        ),
    ),
    "throttled": (
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Access requests'."),
        (400, "ThrottlingException", "Rate exceeded"),
    ),
    "broken": (
        (503, "UNAVAILABLE", "The service is currently unavailable."),
        (500, "InternalServiceError", "An error occurred on the server side."),
    ),
    "unknown": (
        (401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        (400, "UnrecognizedClientException", "The security token included in the request is invalid."),
    ),
}
MISSING = (
    (404, "NOT_FOUND", "Secret [projects/1/secrets/db] not found or has no versions."),
    (400, "ResourceNotFoundException", "Secrets Manager can't find the specified secret."),
)


@dataclass
class Stores:
    """`versions`: of the secret, oldest first; `fault`: a key of FAULTS, `slow` or `proxy`; `login`: the status of what
    Google gives tokens with."""

    port: int = 0
    versions: list[bytes] = field(default_factory=list)
    fault: str = ""
    login: int = 200
    reads: int = 0
    server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = Server(self)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def version(self, wanted: str) -> bytes | None:
        """By number, or its last one; by AWS's stages and ids."""
        number = {"latest": len(self.versions), "AWSCURRENT": len(self.versions), "AWSPREVIOUS": len(self.versions) - 1}
        found = number.get(wanted) or int(wanted.removeprefix(version_id(0)[:-4]) or 0)
        return self.versions[found - 1] if 0 < found <= len(self.versions) else None


def version_id(number: int) -> str:
    return f"a1b2c3d4-5678-90ab-cdef-EXAMPLE1{number:04}"


class Server(ThreadingHTTPServer):
    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        super().__init__(("127.0.0.1", stores.port), Handler)


class Answers(BaseHTTPRequestHandler):
    server: Server

    @property
    def stores(self) -> Stores:
        return self.server.stores

    def fault(self) -> tuple[tuple[int, str, str], tuple[int, str, str]] | None:
        self.stores.reads += 1
        if self.stores.fault == "slow":
            time.sleep(1)
        return FAULTS.get(self.stores.fault)

    def answer(self, status: int, content: object) -> None:
        between = self.stores.fault == "proxy" and self.path != "/token"
        text = b"<html>Bad gateway</html>" if between else json.dumps(content).encode()
        self.send_response(502 if between else status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Google(Answers):
    def google_secret(self) -> None:
        path = re.fullmatch(f"/v1/{GOOGLE}([^/]+):access", self.path)
        if self.headers["Authorization"] != "Bearer a token":
            return self.google_error(*FAULTS["unknown"][0])
        if fault := self.fault():
            return self.google_error(*fault[0])
        content = self.stores.version(path[1]) if path else None
        if content is None:
            return self.google_error(*MISSING[0])
        name = f"projects/1/secrets/db/versions/{len(self.stores.versions)}"
        return self.answer(200, {"name": name, "payload": {"data": base64.b64encode(content).decode()}})

    def google_metadata(self) -> None:
        """Of a virtual machine whose service account may read the secret."""
        if "/token" in self.path:
            return self.google_token()
        return self.answer(200, {"email": "lab@example.org", "scopes": ["cloud-platform"]})

    def google_token(self) -> None:
        login = self.stores.login
        if login == 200:
            return self.answer(200, {"access_token": "a token", "expires_in": 3600, "token_type": "Bearer"})
        error = "invalid_grant" if login == 400 else "internal_failure"
        return self.answer(login, {"error": error, "error_description": "Invalid JWT Signature."})

    def google_error(self, code: int, status: str, message: str) -> None:
        self.answer(code, {"error": {"code": code, "message": message, "status": status}})


class Aws(Answers):
    def aws_secret(self, body: bytes) -> None:
        if self.headers["X-Amz-Target"] != "secretsmanager.GetSecretValue":
            return self.answer(400, {"__type": "UnknownOperationException"})
        if "Credential=lab/" not in self.headers["Authorization"]:
            return self.aws_error(*FAULTS["unknown"][1])
        if fault := self.fault():
            return self.aws_error(*fault[1])
        asked = json.loads(body)
        wanted = asked.get("VersionId") or asked.get("VersionStage") or "AWSCURRENT"
        content = self.stores.version(wanted) if asked["SecretId"] == ARN else None
        if content is None:
            return self.aws_error(*MISSING[1])
        return self.answer(200, {"ARN": ARN, "Name": "lab/db", "CreatedDate": 1.5e9, **aws_value(content)})

    def aws_credentials(self) -> None:
        """Of a container's role."""
        keys = {"AccessKeyId": "lab", "SecretAccessKey": "word", "Token": "a token"}
        self.answer(200, {**keys, "Expiration": "2199-01-01T00:00:00Z", "RoleArn": "lab"})

    def aws_error(self, code: int, kind: str, message: str) -> None:
        self.answer(code, {"__type": kind, "Message": message})


def aws_value(content: bytes) -> dict[str, str]:
    try:
        return {"SecretString": content.decode()}
    except UnicodeDecodeError:
        return {"SecretBinary": base64.b64encode(content).decode()}


class Handler(Google, Aws):
    def do_GET(self) -> None:
        if self.path.startswith("/role"):
            self.aws_credentials()
        elif self.headers["Metadata-Flavor"] == "Google":
            self.google_metadata()
        else:
            self.google_secret()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            self.google_token()
        else:
            self.aws_secret(body)


@contextmanager
def serving() -> Iterator[Stores]:
    stores = Stores()
    stores.start()
    try:
        yield stores
    finally:
        stores.stop()
