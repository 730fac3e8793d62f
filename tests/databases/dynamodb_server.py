"""DynamoDB Local for tests: fetched once into the user's cache, started where it is first needed, on loopback.

All tests, also those in other processes, find it by AWS's own variables, which are set when this is imported: so no
test can reach a real account.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from ems.base.cache import cache_dir
from ems.base.locks import exclusive
from tests.databases.servers import kill, locked

SOURCE = Path(__file__).with_name("dynamodb_local")
LAUNCHER = "LoopbackDynamodb"
ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"


def stable_port() -> int:
    """A free one that no outgoing connection will get meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


CACHE = cache_dir()
os.environ.setdefault(ENDPOINT, f"http://127.0.0.1:{stable_port()}")  # xdist's workers inherit it
os.environ |= {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_EC2_METADATA_DISABLED": "true"}


def installed() -> Path:
    """The folder with DynamoDB Local's libraries and our launcher, made if need be."""
    described = "".join((SOURCE / name).read_text() for name in ("SHA256SUMS", f"{LAUNCHER}.java"))
    folder = CACHE / "dynamodb-local" / hashlib.sha256(described.encode()).hexdigest()[:16]
    with exclusive(folder.with_suffix(".lock")):
        if not folder.exists():
            aside = folder.with_suffix(".tmp")
            shutil.rmtree(aside, ignore_errors=True)
            _install(aside)
            aside.rename(folder)
    return folder


def _install(folder: Path) -> None:
    lib = folder / "lib"
    fetch = ["mvn", "-q", "-B", "-f", str(SOURCE / "pom.xml"), "dependency:copy-dependencies"]
    _run([*fetch, f"-DoutputDirectory={lib}", "-DincludeScope=runtime"])
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in sorted(lib.iterdir())]
    assert sums == sorted((SOURCE / "SHA256SUMS").read_text().splitlines(), key=lambda line: line.split()[1])
    _run(["javac", "-cp", f"{lib}/*", "-d", str(folder), str(SOURCE / f"{LAUNCHER}.java")])


def _run(command: list[str]) -> None:
    assert shutil.which(command[0]), f"There is no {command[0]}: apt-get install maven default-jdk-headless."
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@dataclass(frozen=True)
class DynamodbServer:
    """With a folder it keeps its data there, else in memory."""

    port: int
    pid: int

    @classmethod
    def start(cls, port: int, folder: Path | None = None) -> DynamodbServer:
        home = installed()
        java = [
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            f"-Djava.library.path={home}/lib",
            "-cp",
            f"{home}:{home}/lib/*",
        ]
        kept = ["-dbPath", str(folder)] if folder else ["-inMemory"]
        with (CACHE / "dynamodb-local" / "server.log").open("ab") as log:
            command = [*java, LAUNCHER, *kept, "-port", str(port)]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd="/")
        server = cls(port, process.pid)
        server.wait_until_ready(process)
        return server

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            assert process.poll() is None and time.monotonic() < end, "DynamoDB Local did not start: see server.log"
            time.sleep(0.05)

    def kill(self) -> None:
        kill(self.pid)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Reply = tuple[int, dict[str, Any]] | None  # status and JSON; None: the connection breaks


class Gate(ThreadingHTTPServer):
    """Stands before a server. `intercept` sees each call's name and body; what it returns is answered, or `passed`."""

    daemon_threads = True

    def __init__(self, server: str, intercept: Callable[[Gate, str, dict[str, Any]], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _GateHandler)
        self.server, self.intercept, self.headers = server, intercept, {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def passed(self, name: str, body: dict[str, Any]) -> Reply:
        headers = {"X-Amz-Target": f"DynamoDB_20120810.{name}", "Content-Type": "application/x-amz-json-1.0"}
        headers["Authorization"] = self.headers["Authorization"]
        request = Request(self.server, json.dumps(body).encode(), headers)
        try:
            with urlopen(request) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)


class _GateHandler(BaseHTTPRequestHandler):
    server: Gate

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.headers = dict(self.headers)
        reply = self.server.intercept(self.server, self.headers["X-Amz-Target"].rpartition(".")[2], body)
        if reply is None:
            self.close_connection = True
            return
        content = json.dumps(reply[1]).encode()
        self.send_response(reply[0])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextmanager
def gate(server: str, intercept: Callable[[Gate, str, dict[str, Any]], Reply]) -> Iterator[Gate]:
    with Gate(server, intercept) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@contextmanager
def shared(state: Path) -> Iterator[DynamodbServer]:
    """One server for all processes that know the file `state`: started by the first, ended by the last."""
    port = int(os.environ[ENDPOINT].rpartition(":")[2])
    with locked(state) as known:
        server = DynamodbServer(port, known["pid"]) if known["users"] else DynamodbServer.start(port)
        known |= {"pid": server.pid, "users": known["users"] + 1}
    yield server
    with locked(state) as known:
        known["users"] -= 1
        if not known["users"]:
            server.kill()


@pytest.fixture(scope="session")
def dynamodb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DynamodbServer]:
    base = tmp_path_factory.getbasetemp()
    of_all_workers = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with shared(of_all_workers / "dynamodb.json") as server:
        yield server


@pytest.fixture
def dynamodb_url(dynamodb_server: DynamodbServer) -> str:
    """Of a database of the test's own, without tables."""
    return f"dynamodb://eu-central-1/lab-{uuid.uuid4().hex[:12]}"
