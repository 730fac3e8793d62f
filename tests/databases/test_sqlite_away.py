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

from ems.base.errors import DatabaseError, DatabaseUnavailable, FencedOut
from ems.databases import connect
from ems.databases.sqlite.database import SqliteDatabase
from tests.databases.access_contract import Check, SqlAccessContract
from tests.databases.away_contract import AwayContract, Own
from tests.databases.cases import Address, batch, claimed, fill_lab, ints, table

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
COMING = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for turn in range(5):
    connection.execute("BEGIN IMMEDIATE")
    if turn == 0:
        print("locked", flush=True)
    connection.execute("UPDATE funding SET award = award || 'x'")
    time.sleep(0.7)
    connection.execute("COMMIT")
sys.stdin.readline()
connection.execute("BEGIN IMMEDIATE")
print("stays", flush=True)
time.sleep(600)
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


class TestReplaced:
    """The file that a client has open is deleted, or a backup takes its place: nothing is written into the old one."""

    @pytest.fixture
    def database(self, tmp_path) -> Iterator[SqliteDatabase]:
        with closing(SqliteDatabase(tmp_path / "ems.db")) as made:
            made.create()
            fill_lab(made)
            yield made

    def backup(self, folder: Path) -> Path:
        with closing(sqlite3.connect(folder / "ems.db")) as source, closing(sqlite3.connect(folder / "copy")) as copy:
            source.backup(copy)
        return folder / "copy"

    def test_deleted(self, database, tmp_path):
        claim = claimed(database)
        database.store(claim, batch([0], ints("x", 1)))
        for file in tmp_path.iterdir():
            file.unlink()
        calls = [lambda: database.beat(claim, 1.0), lambda: database.store(claim, batch([1], ints("x", 2)))]
        for call in [*calls, lambda: database.experiment("5f0c")]:
            with pytest.raises(DatabaseError, match="has no tables yet"):
                call()
        database.create()
        fill_lab(database)
        assert table(database, claimed(database).experiment_id) == {}

    def test_a_backup_of_the_same_run(self, database, tmp_path):
        claim = claimed(database)
        database.store(claim, batch([0], ints("x", 1)))
        copy = self.backup(tmp_path)
        database.store(claim, batch([1], ints("x", 2)))
        for suffix in ("-wal", "-shm"):
            (tmp_path / f"ems.db{suffix}").unlink()
        copy.replace(tmp_path / "ems.db")
        database.store(claim, batch([2], ints("x", 3)))
        assert table(database)["x"] == [1, 3]
        with closing(SqliteDatabase(tmp_path / "ems.db")) as other:
            assert table(other)["x"] == [1, 3]

    def test_a_backup_of_before_the_run(self, database, tmp_path):
        claimed(database)
        copy = self.backup(tmp_path)
        claim = claimed(database)
        for suffix in ("-wal", "-shm"):
            (tmp_path / f"ems.db{suffix}").unlink()
        copy.replace(tmp_path / "ems.db")
        with pytest.raises(FencedOut, match=r"was set back to run 1: what was stored since is lost"):
            database.store(claim, batch([0], ints("x", 1)))
        assert claimed(database).attempt == 2


def test_who_waits_beside_others_that_come_and_go_gives_up_only_on_one_that_stays(tmp_path):
    """Each of the others keeps the lock for most of the time that one call waits, one right after the other."""
    with closing(SqliteDatabase(tmp_path / "ems.db", wait_s=1.0)) as database:
        database.create()
        fill_lab(database)
        claim = claimed(database)
        pipe = subprocess.PIPE
        other = subprocess.Popen([sys.executable, "-c", COMING, str(tmp_path / "ems.db")], stdin=pipe, stdout=pipe)
        assert other.stdout.readline() == b"locked\n"
        database.store(claim, batch([0], ints("x", 1)))
        assert table(database)["x"] == [1]
        other.stdin.write(b"stay\n")
        other.stdin.flush()
        assert other.stdout.readline() == b"stays\n"
        with pytest.raises(DatabaseUnavailable, match="others kept it locked"):
            database.store(claim, batch([1], ints("x", 2)))
        other.kill()
        other.communicate()
        database.store(claim, batch([1], ints("x", 2)))


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
        before = {file: file.stat().st_mode for file in address[1].glob("ems.db*")}  # its log and index too
        for file in before:
            file.chmod(mode)
        with get_context("spawn").Pool(1) as pool:
            pool.apply(checked_as_nobody, (address, check))
        for file, rights in before.items():
            file.chmod(rights)

    @pytest.fixture
    def execute(self, address) -> Callable[[str], None]:
        def run(statement: str) -> None:
            with closing(sqlite3.connect(address[1] / "ems.db")) as connection, connection:
                connection.execute(statement)

        return run
