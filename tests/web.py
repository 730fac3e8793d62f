"""A small https server on loopback, whose certificate the test trusts, and which fails as it is told."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme


@dataclass
class Web:
    """`failures`: statuses of the next answers; `cut_after`: bytes after which each of the next answers breaks off."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    ranges: bool = True
    tags: bool = True  # an ETag is sent
    heeds_tags: bool = True  # If-Range is obeyed
    changes: list[bytes] = field(default_factory=list)  # what each file is after the next answers that break off
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and range of each request

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"


def handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range") if web.ranges else None
            web.asked.append((self.path, self.headers.get("Range")))
            content = web.files.get(self.path, b"")
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            if web.heeds_tags and self.headers.get("If-Range", tag) != tag:
                wanted = None
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            if web.failures:
                self.answer(web.failures.pop(0), b"")
            elif self.path in web.redirects:
                self.answer(302, b"", Location=web.redirects[self.path])
            elif self.path not in web.files:
                self.answer(404, b"")
            elif start and start >= len(content):
                self.answer(416, b"")
            else:
                self.answer(206 if wanted else 200, content[start:], **({"ETag": tag} if web.tags else {}))

        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            cut = bool(web.cut_after and content)
            self.wfile.write(content[: web.cut_after.pop(0)] if cut else content)
            if cut and web.changes:
                web.files[self.path] = web.changes.pop(0)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Web, Path]]:
    """The server, and the file with the certificate of its authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    web = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(web))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    web.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield web, folder / "authority.pem"
    finally:
        server.shutdown()
        server.server_close()
