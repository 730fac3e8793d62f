"""Real servers for tests: started where they are first needed, shared by all test processes, ended by the last one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

SUPERUSER = "ems"
UNSAFE_BUT_QUICK = "fsync = off\nfull_page_writes = off\nautovacuum_naptime = 5min\n"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def program(name: str) -> str:
    """PostgreSQL's `name`, on PATH or where Debian puts it."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -int(folder.parent.name))
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    assert found, (
        f"There is no {name}: install PostgreSQL's server (`make test` does), as by apt-get install postgresql."
    )
    return found


def kill(pid: int) -> None:
    """At once, as in a crash; returns when it has ended, with all its threads, which keep its port open.

    Another process may be its parent, and take notice later.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.kill()
        while process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1):
            time.sleep(0.02)


@dataclass(frozen=True)
class PostgresqlServer:
    """A cluster of its own in `folder`, which listens on the loopback interface and on a socket in `folder`."""

    folder: Path
    port: int

    @classmethod
    def make(cls, settings: str = "", access: str = "host all all 127.0.0.1/32 trust\nlocal all all trust\n"):
        """A new one, started."""
        server = cls._nowhere()
        server._run("initdb", "-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        server._configure(f"listen_addresses = '127.0.0.1'\nmax_connections = 300\n{UNSAFE_BUT_QUICK}{settings}")
        (server.folder / "data/pg_hba.conf").write_text(access)
        server.start()
        return server

    @classmethod
    def _nowhere(cls):
        """Its folder lies in /tmp, as the server, which is never root, must reach it."""
        server = cls(Path(tempfile.mkdtemp(prefix="ems-pg-", dir="/tmp")), free_port())
        if os.geteuid() == 0:
            shutil.chown(server.folder, "postgres", "postgres")
        return server

    def _configure(self, settings: str) -> None:
        with (self.folder / "data/postgresql.conf").open("a") as file:
            file.write(f"port = {self.port}\nunix_socket_directories = '{self.folder}'\n{settings}")

    def standby(self) -> PostgresqlServer:
        """A new server, started, that has all that this one has, follows it, and can be read alone."""
        server = self._nowhere()
        primary = ["-h", str(self.folder), "-p", str(self.port), "-U", SUPERUSER]
        server._run("pg_basebackup", *primary, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        server._configure("")
        server.start()
        return server

    def is_followed(self) -> bool:
        """Whether a standby has shown all that was committed here."""
        behind = "SELECT bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication"
        return self.execute(behind) == [(True,)]

    def _run(self, name: str, *words: str) -> None:
        command = [program(name), "-D", str(self.folder / "data"), *words]
        log = self.folder / "commands.log"
        as_other = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        with log.open("ab") as out:
            done = subprocess.run(command, cwd=self.folder, stdout=out, stderr=out, check=False, **as_other)
        assert done.returncode == 0, f"{command}: {log.read_text()}"

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-l", str(self.folder / "server.log"), "start")

    def stop(self) -> None:
        """At once, as in a crash: its processes are killed, and it recovers when it starts again."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str = "postgres", user: str = SUPERUSER, host: str = "127.0.0.1", query: str = "") -> str:
        return f"postgresql://{user}@{host}:{self.port}/{database}{query}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Each statement of `sql` by itself, as the superuser; the rows of the last."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def database(self) -> Iterator[str]:
        """A new, empty one; its name."""
        name = f"lab_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        yield name
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def shared(state: Path) -> Iterator[PostgresqlServer]:
    """One server for all processes that know the file `state`: made by the first, ended by the last."""
    with locked(state) as known:
        server = PostgresqlServer(Path(known["folder"]), known["port"]) if known["users"] else PostgresqlServer.make()
        known |= {"folder": str(server.folder), "port": server.port, "users": known["users"] + 1}
    yield server
    with locked(state) as known:
        known["users"] -= 1
        if not known["users"]:
            server.end()


@contextmanager
def locked(state: Path) -> Iterator[dict[str, Any]]:
    with state.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = json.loads(file.read() or '{"users": 0}')
        yield known
        file.truncate(0)
        file.write(json.dumps(known))


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    base = tmp_path_factory.getbasetemp()
    of_all_workers = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with shared(of_all_workers / "postgresql.json") as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """Of an empty database of the test's own."""
    with postgresql_server.database() as name:
        yield postgresql_server.url(name)
