"""A stand-in for Google Cloud Storage: its JSON interface, as far as a store needs it, and its faults."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c


class Bucket:
    """What the server has: objects, uploads that are under way, and answers that are to be faults, by method."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.faults: list[tuple[str, int]] = []
        self.denied = False
        self.lock = threading.Lock()


class Storage(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with self.bucket.lock:
            for number, (method, status) in enumerate(self.bucket.faults):
                if method == self.command:
                    del self.bucket.faults[number]
                    return self.fault(status)
            if self.bucket.denied:
                return self.answer(403, error(403, "me@lab does not have storage.objects.create access"))
            path = re.fullmatch(r"/(upload/|download/|resumable/)?storage/v1/b/([^/]+)/o/?(.*)", parts.path)
            if not path or path[2] != "lab-data":
                return self.answer(404, error(404, "The specified bucket does not exist."))
            if path[1] == "upload/":
                return self.upload(asked, body)
            return self.read(unquote(path[3]), asked)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def fault(self, status: int) -> None:
        if status:
            self.answer(status, error(status, "not now"))
        else:
            self.close_connection = True  # cut off

    def upload(self, asked: dict[str, str], body: bytes) -> None:
        if "upload_id" in asked:
            return self.go_on(asked["upload_id"], body)
        if asked.get("ifGenerationMatch") == "0" and asked.get("name", "") in self.bucket.objects:
            return self.answer(412, error(412, "At least one of the pre-conditions did not hold."))
        if asked["uploadType"] == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            about, content = message_from_bytes(head + body).get_payload()  # type: ignore[misc]
            name = json.loads(about.get_payload())["name"]
            return self.complete(name, bytes(content.get_payload(decode=True)))
        name, id = json.loads(body)["name"], f"upload{len(self.bucket.uploads)}"
        self.bucket.uploads[id] = (name, bytearray())
        place = f"http://{self.headers['Host']}/upload/storage/v1/b/lab-data/o?uploadType=resumable&upload_id={id}"
        return self.answer(200, b"", Location=place)

    def go_on(self, id: str, body: bytes) -> None:
        name, had = self.bucket.uploads[id]
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"])
        assert span
        if span[1] is not None:
            assert int(span[1]) == len(had)
            had += body
        if span[2] == str(len(had)):
            del self.bucket.uploads[id]
            return self.complete(name, bytes(had))
        return self.answer(308, b"", **({"Range": f"bytes=0-{len(had) - 1}"} if had else {}))

    def complete(self, name: str, content: bytes) -> None:
        self.bucket.objects[name] = content
        self.answer(200, described(name, content))

    def read(self, name: str, asked: dict[str, str]) -> None:
        content = self.bucket.objects.get(name)
        if content is None:
            return self.answer(404, error(404, f"No such object: lab-data/{name}"))
        if asked.get("alt") != "media":
            return self.answer(200, described(name, content))
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        if int(first) >= len(content):
            return self.answer(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
        part = content[int(first) : int(last or len(content)) + 1]
        told = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        return self.answer(206 if "Range" in self.headers else 200, part, **{"Content-Range": told})

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


def error(status: int, message: str) -> bytes:
    return json.dumps({"error": {"code": status, "message": message}}).encode()


def described(name: str, content: bytes) -> bytes:
    checksum = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
    about = {"bucket": "lab-data", "name": name, "size": str(len(content)), "generation": "1", "crc32c": checksum}
    return json.dumps({"kind": "storage#object", **about}).encode()


@contextmanager
def serving() -> Iterator[tuple[str, Bucket]]:
    """Its address, and what it has."""
    bucket = Bucket()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Storage,), {"bucket": bucket}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", bucket
    server.shutdown()
    server.server_close()
