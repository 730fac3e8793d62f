"""Stands before BigQuery's emulator, which lets everybody do everything: refuses what the service would, or loses an
answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

Reply = tuple[int, bytes]
Judge = Callable[[str, str, bytes], Reply | None]
"""Of a request's method, path and body: what is answered, or None to pass it on."""

READER = {"bigquery.tables.get", "bigquery.tables.getData"}


def refusal(code: int, reason: str, message: str) -> Reply:
    error = {"code": code, "message": message, "errors": [{"reason": reason, "message": message}]}
    return code, json.dumps({"error": error}).encode()


def reader(method: str, path: str, body: bytes) -> Reply | None:
    """Who has roles/bigquery.dataViewer and jobUser."""
    if path.endswith(":testIamPermissions"):
        asked = json.loads(body)["permissions"]
        return 200, json.dumps({"permissions": sorted(READER.intersection(asked))}).encode()
    if method == "GET" or (path.endswith("/queries") and _only_reads(json.loads(body)["query"])):
        return None
    return refusal(403, "accessDenied", "Access Denied: Permission bigquery.tables.updateData denied")


def _only_reads(sql: str) -> bool:
    return sql.lstrip(" (\n").upper().startswith(("SELECT", "WITH"))


def stranger(method: str, path: str, body: bytes) -> Reply | None:
    return refusal(401, "authError", "Request had invalid authentication credentials")


def everybody(method: str, path: str, body: bytes) -> Reply | None:
    return None


class _Handler(BaseHTTPRequestHandler):
    server: _Gate

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code, answer = self.server.judge(self.command, self.path.partition("?")[0], body) or self._passed(body)
        if self.server.loses and self.server.loses in body:
            self.server.loses = b""
            self.close_connection = True
            return
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _passed(self, body: bytes) -> Reply:
        kept = {name: self.headers[name] for name in ("Content-Type", "If-Match") if name in self.headers}
        try:
            with urlopen(Request(self.server.host + self.path, body or None, kept, method=self.command)) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    def log_message(self, *_: Any) -> None:
        """Silent."""


class _Gate(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, judge: Judge, loses: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host, self.judge, self.loses = host, judge, loses


@contextmanager
def gate(host: str, judge: Judge, loses: bytes = b"") -> Iterator[str]:
    """The gate's own host, with which clients come to the emulator at `host`.

    Of the first request with `loses` in it the emulator's answer is lost.
    """
    with _Gate(host, judge, loses) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_address[1]}"
        finally:
            made.shutdown()
            thread.join()
        assert not made.loses, "there was no such request"
