"""A store in S3: moto's server on loopback, with the real client; faults by a gate in front of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from botocore.session import Session

from ems.base.errors import StoreError, StoreUnavailable, UserError
from ems.stores import Store, connect
from tests.moto_server import log_in, moto
from tests.processes import PATIENCE_S
from tests.stores.contract import LARGE, StoreContract, put, putting, written

__all__ = ["moto"]
ERROR = "<Error><Code>{}</Code><Message>Not you, or not now.</Message></Error>"


class Gate(BaseHTTPRequestHandler):
    """Passes requests on, but for those that `faults` names: method, a part of the URL, status (0: cut off)."""

    protocol_version = "HTTP/1.1"
    server_at = ""
    faults: ClassVar[list[tuple[str, str, int]]] = []
    passed: ClassVar[threading.Event] = threading.Event()

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        for number, (method, part, status) in enumerate(self.faults):
            if method == self.command and part in self.path:
                del self.faults[number]
                self.fault(status)
                return
        connection = HTTPConnection(urlsplit(self.server_at).netloc)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        self.reply(answer.status, answer.read(), answer.getheaders())
        if "partNumber=2" in self.path:
            self.passed.set()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def fault(self, status: int) -> None:
        if status:
            code = "AccessDenied" if status == 403 else "SlowDown"
            self.reply(status, b"" if self.command == "HEAD" else ERROR.format(code).encode(), [])
        else:
            self.close_connection = True

    def reply(self, status: int, content: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        told = {name.lower(): text for name, text in headers if name.lower() not in {"connection", "transfer-encoding"}}
        told = {"content-length": str(len(content))} | told
        for name, text in told.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def gate(moto, tmp_path, monkeypatch) -> Iterator[type[Gate]]:
    found = type("Own", (Gate,), {"server_at": moto, "faults": [], "passed": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), found)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log_in(tmp_path, monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    HTTPConnection(urlsplit(moto).netloc).request("POST", "/moto-api/reset")
    Session(profile="lab").create_client("s3").create_bucket(Bucket="lab-data")
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(gate, tmp_path) -> Store:
    found = connect("s3://lab-data/a/lab", tmp_path)
    found.make_ready()
    return found


def listed() -> dict[str, int]:
    found = Session().create_client("s3").list_objects_v2(Bucket="lab-data").get("Contents", [])
    return {each["Key"]: each["Size"] for each in found}


def uploads() -> int:
    return len(Session().create_client("s3").list_multipart_uploads(Bucket="lab-data").get("Uploads", []))


class TestS3(StoreContract):
    @pytest.fixture
    def elsewhere(self, store, tmp_path) -> Store:
        return connect("s3://lab-data/b", tmp_path)

    def objects(self, store: Store) -> list[str]:
        assert not uploads()
        return sorted({name.removeprefix("a/lab/") for name in listed()} - {"ems-store.json"})


@pytest.mark.parametrize("status", [429, 503, 0])
@pytest.mark.parametrize(
    ("method", "part"), [("HEAD", ""), ("POST", "uploads"), ("PUT", "partNumber"), ("POST", "Id=")]
)
def test_an_upload_that_is_interrupted_goes_on(store, gate, tmp_path, status, method, part):
    content = os.urandom(LARGE)
    gate.faults += [(method, part, status)] * 2
    kept = put(store, written(tmp_path, content))
    assert not gate.faults and listed()[f"a/lab/{kept.digest[:2]}/{kept.digest}"] == LARGE
    gate.faults += [("GET", kept.digest, status)] * 2
    assert b"".join(store.read(kept.digest)) == content
    assert not uploads()


def test_a_service_that_stays_away_is_told_and_leaves_nothing(store, gate, tmp_path):
    gate.faults += [("PUT", "partNumber=3", 503)] * 4
    with pytest.raises(StoreUnavailable, match=r"s3://lab-data/a/lab does not answer now \((SlowDown|503)"):
        put(store, written(tmp_path, os.urandom(LARGE)))
    assert not uploads() and len(listed()) == 1
    put(store, tmp_path / "file")
    assert len(listed()) == 2


def test_a_killed_upload_is_not_seen(store, gate, tmp_path):
    file = written(tmp_path, os.urandom(LARGE))
    with putting(store.name, file):
        assert gate.passed.wait(PATIENCE_S)
    assert len(listed()) == 1
    kept = put(store, file)
    assert listed()[f"a/lab/{kept.digest[:2]}/{kept.digest}"] == LARGE


def test_what_is_wrong_is_told_before_anything_is_made(gate, tmp_path, monkeypatch):
    with pytest.raises(StoreError, match=r"the bucket 'nosuch' is not there(.|\n)*aws s3 mb s3://nosuch"):
        connect("s3://nosuch", tmp_path).make_ready()
    gate.faults += [("PUT", "", 403)]
    with pytest.raises(StoreError, match=r"refuses(.|\n)*aws sts get-caller-identity") as caught:
        connect("s3://lab-data", tmp_path).make_ready()
    assert not isinstance(caught.value, StoreUnavailable) and "word" not in str(caught.value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for profile in ("lab", None):
        monkeypatch.setenv("AWS_PROFILE", profile) if profile else monkeypatch.delenv("AWS_PROFILE")
        with pytest.raises(StoreError, match="no credentials were found"):
            connect("s3://lab-data", tmp_path).make_ready()


def test_addresses(tmp_path):
    for url, told in {
        "s3://": "names no bucket",
        "s3://Lab": "names no bucket",
        "s3://id:word@lab/x": "credentials",
        "s3://lab/x?key=word": "credentials",
    }.items():
        with pytest.raises(UserError, match=told) as caught:
            connect(url, tmp_path)
        assert "word" not in str(caught.value)
