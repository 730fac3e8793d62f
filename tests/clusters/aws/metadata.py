"""The metadata service of an instance, version 2 alone: `python metadata.py FILE`, in the instance's own network.

FILE is JSON, read for each question: `paths`, with what is answered below /latest/. Standard library alone.
"""

from __future__ import annotations

import json
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ADDRESS = ("169.254.169.254", 80)
TOKENS: set[str] = set()


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        """A token for the questions that follow."""
        if self.path != "/latest/api/token" or "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
            self.answer(400, "")
            return
        token = secrets.token_urlsafe()
        TOKENS.add(token)
        self.answer(200, token)

    def do_GET(self) -> None:
        """What FILE says; nothing without a token."""
        if self.headers.get("X-aws-ec2-metadata-token") not in TOKENS:
            self.answer(401, "")
            return
        paths = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["paths"]
        found = paths.get(self.path.removeprefix("/latest/"))
        self.answer(404 if found is None else 200, found or "")

    def answer(self, code: int, text: str) -> None:
        content = text.encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


if __name__ == "__main__":
    ThreadingHTTPServer(ADDRESS, Service).serve_forever()
