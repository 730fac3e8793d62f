"""A BigQuery emulator for tests: installed once, started where it is first needed, shared by all test processes.

`python -m tests.databases.bigquery_server` installs it alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from uv import find_uv_bin

from ems.base.cache import cache_dir
from ems.base.locks import exclusive
from tests.databases.dynamodb_server import stable_port
from tests.databases.servers import free_port, kill, locked

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements" / "bigquery-emulator.txt"
PYTHON = "3.13"  # that of the emulator
PROJECT = "lab-project"
CACHE = cache_dir()
HOST = os.environ.setdefault(
    "BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{stable_port()}"
)  # xdist's workers inherit it
START_S = 120.0


def install() -> Path:
    """The emulator's environment, in the user's cache, made if need be."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = CACHE / "bigquery-emulator" / digest
    with exclusive(folder.with_suffix(".lock")):
        if not folder.exists():
            aside = folder.with_suffix(".tmp")
            _make(aside)
            aside.rename(folder)
    return folder


def _make(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = find_uv_bin()
    subprocess.run([uv, "venv", "--quiet", "--relocatable", "--python", _python(), str(folder)], check=True)
    wanted = ["--require-hashes", "-r", str(REQUIREMENTS)]
    environment = {"UV_SYSTEM_CERTS": "true", **os.environ}
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), *wanted], env=environment, check=True
    )
    for extension in folder.glob("lib/*/site-packages/duckdb_extension_*/extensions/*/*.duckdb_extension"):
        home = folder / "home/.duckdb/extensions" / extension.parent.name / _platform(folder)
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(extension, home)


def _python() -> str:
    """One that works, of PATH or pyenv; else uv looks for it, and gets it where it may."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    named = shutil.which(f"python{PYTHON}")
    for candidate in [*([named] if named else []), *map(str, pyenv.glob(f"versions/{PYTHON}.*/bin/python{PYTHON}"))]:
        if subprocess.run([candidate, "--version"], capture_output=True, check=False).returncode == 0:
            return candidate
    return PYTHON


def _platform(folder: Path) -> str:
    code = "import duckdb; print(duckdb.execute('PRAGMA platform').fetchone()[0])"
    return subprocess.run(
        [folder / "bin/python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@dataclass(frozen=True)
class BigqueryServer:
    """An emulator with its data in `folder`, which listens at `host` alone."""

    folder: Path
    host: str

    @classmethod
    def make(cls, host: str | None = None) -> BigqueryServer:
        """A new one, started; in memory, which is quicker than a disk."""
        memory = Path("/dev/shm")
        folder = tempfile.mkdtemp(prefix="ems-bigquery-", dir=memory if memory.is_dir() else None)
        server = cls(Path(folder), host or f"http://127.0.0.1:{stable_port()}")
        server.start()
        return server

    def start(self) -> None:
        installed = install()
        script = [str(installed / "bin/python"), str(ROOT / "tests/databases/bigquery_emulator.py"), "serve"]
        ports = ["--port", self.host.rpartition(":")[2], "--grpc-port", str(free_port())]
        where = ["--host", "127.0.0.1", *ports, "--project", PROJECT, "--data-dir", str(self.folder / "data")]
        with (self.folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [*script, *where],
                env={**os.environ, "HOME": str(installed / "home")},
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        (self.folder / "pid").write_text(str(process.pid))
        self._wait(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until and process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.host}/bigquery/v2/projects", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"The emulator did not start: {(self.folder / 'server.log').read_text()}")

    def kill(self) -> None:
        """At once, as in a crash."""
        kill(int((self.folder / "pid").read_text()))

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    @staticmethod
    def url() -> str:
        """Of a dataset that is not there yet."""
        return f"bigquery://{PROJECT}/lab_{uuid.uuid4().hex[:12]}"


@contextmanager
def shared(state: Path) -> Iterator[BigqueryServer]:
    """One server for all processes that know the file `state`: made by the first, ended by the last."""
    with locked(state) as known:
        server = BigqueryServer(Path(known["folder"]), HOST) if known["users"] else BigqueryServer.make(HOST)
        known |= {"folder": str(server.folder), "users": known["users"] + 1}
    yield server
    with locked(state) as known:
        known["users"] -= 1
        if not known["users"]:
            server.end()


@pytest.fixture(scope="session")
def bigquery_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigqueryServer]:
    base = tmp_path_factory.getbasetemp()
    of_all_workers = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with shared(of_all_workers / "bigquery.json") as server:
        yield server


@pytest.fixture
def bigquery_url(bigquery_server: BigqueryServer) -> str:
    """Of a dataset of the test's own, which is not there yet."""
    return bigquery_server.url()


if __name__ == "__main__":
    print(f"BigQuery's emulator is in {install()}")  # noqa: T201
