"""A stand-in for Google Cloud Storage: its JSON interface, as far as reading one object needs it.

A process of its own, as Arrow holds Python's lock while it waits for the first byte. Tells its address on standard
error.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

CONTENT = bytes(range(256)) * 36_864  # 9 MiB: more than one read
KEY = "some folder/rates #1?.csv"


class Storage(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if not self.headers.get("Authorization", "").startswith("Bearer "):
            self.answer(401, b'{"error": {"code": 401, "message": "Who are you?"}}')
        elif unquote(parts.path) != f"/storage/v1/b/lab-data/o/{KEY}":
            self.answer(404, b'{"error": {"code": 404, "message": "No such object"}}')
        elif "alt=media" in parts.query:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.answer(206 if start else 200, CONTENT[start:])
        else:
            about = {"bucket": "lab-data", "name": KEY, "size": str(len(CONTENT)), "generation": "1"}
            self.answer(200, json.dumps({"kind": "storage#object", **about}).encode())

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    sys.stderr.write(f"Running on http://127.0.0.1:{server.server_port}\n")
    server.serve_forever()
