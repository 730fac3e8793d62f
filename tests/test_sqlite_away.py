"""SQLite has no server: what comes nearest is a writer that keeps the file locked, and is killed half-way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ems.databases.sqlite import SqliteDatabase
from tests.away_contract import AwayContract, Own

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
