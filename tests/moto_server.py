"""S3 for tests: moto's server on loopback, and a profile with credentials for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest


@contextmanager
def running(*command: str) -> Iterator[str]:
    """The URL of a server that tells on standard error that it is `Running on` it."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        assert server.stderr
        line = next(line for line in server.stderr if b"Running on" in line)
        Thread(target=server.stderr.read, daemon=True).start()  # a pipe that is full would stop the server
        yield "http://" + line.decode().partition("http://")[2].split()[0]
        server.terminate()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with running("-m", "moto.server", "-H", "127.0.0.1", "-p", "0") as url:
        yield url


def log_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials stand in a profile, as people have them."""
    (folder / "credentials").write_text("[lab]\naws_access_key_id = id\naws_secret_access_key = word\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
