"""SQLite has no server: what comes nearest is a writer that keeps the file locked, and is killed half-way.

It has no passwords either: what keeps people out, or from writing, are the permissions of the file.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pytest

from ems.databases import connect
from ems.databases.sqlite.database import SqliteDatabase
from tests.databases.access_contract import Check, SqlAccessContract
from tests.databases.away_contract import AwayContract, Own
from tests.databases.cases import Address

pytestmark = pytest.mark.xdist_group("sqlite_away")
HALF = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
connection.execute("UPDATE experiment SET rows_stored = 77, state = 'failed'")
connection.execute("DELETE FROM run")
print("half done", flush=True)
sys.stdin.read()
"""


class Writer:
    """Of the file at `url`, whose lock it holds from `kill` to `start`."""

    url = "sqlite:///ems.db"

    def __init__(self, file: Path) -> None:
        self._file = file

    def kill(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-c", HALF, str(self._file)], stdin=pipe, stdout=pipe)
        assert self._process.stdout.readline() == b"half done\n"

    def start(self) -> None:
        self._process.kill()
        self._process.communicate()


class TestAway(AwayContract):
    reads_meanwhile = True

    @pytest.fixture
    def own(self, tmp_path) -> Own:
        return Writer(tmp_path / "ems.db")

    @pytest.fixture
    def client(self, tmp_path) -> Iterator[SqliteDatabase]:
        return SqliteDatabase(tmp_path / "ems.db", wait_s=0.2)


def checked_as_nobody(address: Address, check: Check) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)  # root may do what permissions forbid
    with closing(connect(*address)) as database:
        check(database)


class TestAccess(SqlAccessContract):
    says_read_only = "cannot be written.*permissions"
    says_wrong = "cannot be opened.*permissions"

    @pytest.fixture
    def address(self) -> Iterator[Address]:
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            yield "sqlite:///ems.db", Path(name)

    @pytest.fixture
    def as_reader(self, address) -> Callable[[Check], None]:
        return lambda check: self.with_mode(0o444, address, check)

    @pytest.fixture
    def as_stranger(self, address) -> Callable[[Check], None]:
        return lambda check: self.with_mode(0o000, address, check)

    def with_mode(self, mode: int, address: Address, check: Check) -> None:
        file = address[1] / "ems.db"
        before = file.stat().st_mode
        file.chmod(mode)
        with get_context("spawn").Pool(1) as pool:
            pool.apply(checked_as_nobody, (address, check))
        file.chmod(before)

    @pytest.fixture
    def execute(self, address) -> Callable[[str], None]:
        def run(statement: str) -> None:
            with closing(sqlite3.connect(address[1] / "ems.db")) as connection, connection:
                connection.execute(statement)

        return run
