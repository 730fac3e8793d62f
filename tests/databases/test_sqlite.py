import gc
import random
import resource
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from contextlib import closing
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest
from sqlalchemy import func, text

from ems.base import filesystems
from ems.base.errors import DatabaseError, DatabaseUnavailable, UserError
from ems.base.filesystems import filesystem
from ems.databases import Outcome, State, connect
from ems.databases.sqlite.database import SqliteDatabase
from ems.databases.tables import UtcTime
from ems.views.frames import to_frame
from tests.databases.cases import (
    Address,
    batch,
    claimed,
    fill_lab,
    floats,
    now,
    table,
)
from tests.databases.contract import DatabaseContract

URL = "sqlite:///data/ems.db"
LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


class Locked:
    """Another process that holds the database's lock from `with` to its end."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> "Locked":
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", LOCK, str(self.file)], stdin=pipe, stdout=pipe)
        assert self.process.stdout.readline() == b"locked\n"
        return self

    def release_in(self, seconds: float) -> None:
        threading.Timer(seconds, self.process.stdin.close).start()

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "data" / "ems.db"


@pytest.fixture
def made(tmp_path):
    with closing(connect(URL, tmp_path)) as database:
        database.create()
        fill_lab(database)
        yield database


class TestSqlite(DatabaseContract):
    exact_nan = False

    @pytest.fixture
    def address(self, tmp_path) -> Address:
        return URL, tmp_path


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:",
        "sqlite:///:memory:",
        "sqlite://host/x.db",
        "sqlite:///x.db?mode=ro",
        "sqlite:///a#b",
    ],
)
def test_urls_that_name_no_file(url, tmp_path):
    with pytest.raises(UserError, match=r"sqlite:////absolute/path"):
        connect(url, tmp_path)


def test_an_absolute_path_is_taken_as_it_is(tmp_path):
    elsewhere = tmp_path / "else where" / "lab %20 ä.db"
    with closing(connect(f"sqlite:///{elsewhere}", tmp_path / "root")) as database:
        database.create()
    assert elsewhere.is_file()


def test_reading_makes_neither_folder_nor_file(file, tmp_path):
    with closing(connect(URL, tmp_path)) as database:
        with pytest.raises(DatabaseError, match="has no tables yet"):
            database.experiments()
        assert list(tmp_path.iterdir()) == []
        file.parent.mkdir()
        with pytest.raises(DatabaseError, match="has no tables yet"):
            database.experiments()
        assert list(file.parent.iterdir()) == []


def test_reading_an_empty_file_leaves_it_empty(file, tmp_path):
    file.parent.mkdir()
    file.touch()
    with closing(connect(URL, tmp_path)) as database, pytest.raises(DatabaseError, match="has no tables yet"):
        database.experiments()
    assert file.read_bytes() == b""


def test_a_lock_is_waited_out(made, file):
    claim = claimed(made)
    with Locked(file) as other:
        other.release_in(1.0)
        made.store(claim, batch([0], floats("x", 1.5)))
    assert table(made)["x"] == [1.5]


def test_making_tables_waits_for_others_too(file, tmp_path):
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("CREATE TABLE theirs (a)")
    with closing(connect(URL, tmp_path)) as database, Locked(file) as other:
        other.release_in(0.5)
        database.create()
        assert database.experiments() == []


def test_a_lock_that_stays_is_unavailable_and_loses_nothing(made, file):
    claim = claimed(made)
    with closing(SqliteDatabase(file, wait_s=0.2)) as hasty:
        with Locked(file):
            for call in (lambda: hasty.store(claim, batch([0], floats("x", 1.5))), hasty.create):
                with pytest.raises(DatabaseUnavailable, match=r"others kept it locked(.|\n)*try again"):
                    call()
            assert now(hasty).rows_stored == 0  # readers are not kept out
        hasty.store(claim, batch([0], floats("x", 1.5)))
    assert table(made)["x"] == [1.5]


def test_not_a_database(file, tmp_path):
    file.parent.mkdir()
    file.write_text("time,value\n" * 500)
    with closing(connect(URL, tmp_path)) as database:
        for call in (database.experiments, database.create):
            with pytest.raises(DatabaseError, match="is not an SQLite database") as raised:
                call()
            assert not isinstance(raised.value, DatabaseUnavailable)
    assert file.read_text().startswith("time,value")


def test_a_folder_in_its_place(file, tmp_path):
    file.mkdir(parents=True)
    with closing(connect(URL, tmp_path)) as database, pytest.raises(DatabaseError, match="cannot be opened"):
        database.create()


def test_nobody_else_may_read_it_but_who_was_let_in(file, tmp_path):
    """Records are for the lab: what EMS makes is its owner's alone, what a person opened stays open."""
    with closing(connect(URL, tmp_path)) as database:
        database.create()
        made = {path.name: path.stat().st_mode & 0o777 for path in file.parent.glob(f"{file.name}*")}
    assert {"ems.db", "ems.db-wal"} <= made.keys() and set(made.values()) == {0o600}
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o640)
    with closing(connect(URL, tmp_path)) as database:
        database.create()
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_file_in_the_place_of_its_folder(file, tmp_path):
    file.parent.touch()
    with (
        closing(connect(URL, tmp_path)) as database,
        pytest.raises(DatabaseError, match="cannot be made"),
    ):
        database.create()


def test_a_damaged_file(made, file, tmp_path):
    made.store(claimed(made), batch(list(range(5000)), floats("x", *range(5000))))
    made.close()
    with file.open("r+b") as damaged:
        damaged.seek(4096 * 2)
        damaged.write(random.Random(1).randbytes(file.stat().st_size - 4096 * 2))
    with closing(connect(URL, tmp_path)) as database, pytest.raises(DatabaseError, match="is damaged"):
        [list(database.results(found.id)) for found in database.experiments()]


def fill_disk(folder: str) -> str:
    with closing(connect(URL, Path(folder))) as database:
        claim = claimed(database)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            database.store(claim, batch(list(range(200_000)), floats("x", *[0.5] * 200_000)))
        except DatabaseUnavailable as error:
            return f"{error} {now(database).rows_stored}"
    return "stored"


def test_a_full_disk_is_unavailable_and_keeps_what_was_there(made, tmp_path):
    with get_context("spawn").Pool(1) as pool:
        said = pool.apply(fill_disk, (str(tmp_path),))
    assert "does not answer: its disk" in said
    assert said.endswith(" 0")
    assert table(made) == {}


def test_a_call_that_the_driver_refuses_is_not_called_unavailable(made, file):
    claim = claimed(made)
    made.store(claim, batch([0], floats("x", 1.0)))
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TRIGGER no BEFORE INSERT ON digits BEGIN SELECT RAISE(FAIL, 'not today'); END")
    with pytest.raises(DatabaseError, match=r"refused a call .*not today") as raised:
        made.store(claim, batch([1], floats("x", 1.0)))
    assert not isinstance(raised.value, DatabaseUnavailable)
    assert table(made)["x"] == [1.0]


def test_tables_read_without_ems(made, file):
    claim = claimed(made)
    made.store(claim, batch([0], floats("loss", 0.25)))
    with closing(sqlite3.connect(file)) as raw:
        names = "experiment.stack, experimenter.name, funding.agency, run.agent, digits.loss"
        joins = " JOIN ".join(
            [
                "experiment",
                "experimenter ON experimenter.id = experimenter",
                "funding ON funding.id = funding",
                "run ON run.experiment_id = experiment.id",
                "digits ON digits.experiment_id = experiment.id",
            ]
        )
        assert raw.execute(f"SELECT {names} FROM {joins}").fetchall() == [
            ("digits", "A Researcher", "An agency", "a", 0.25)
        ]
        (registered,) = raw.execute("SELECT registered_at FROM experiment").fetchone()
        assert registered[:16] == raw.execute("SELECT datetime(?)", (registered,)).fetchone()[0][:16]
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_foreign_keys_hold(made, file):
    with (
        pytest.raises(DatabaseError, match="FOREIGN KEY"),
        made._backend.transaction(write=True) as connection,  # as a fault in EMS would
    ):
        connection.execute(text("INSERT INTO point VALUES ('ghost', 0, 'failed', '{}', '', 1)"))


def test_charges_and_runs_are_recorded(made, file):
    first = claimed(made, lease_s=0)
    second = claimed(made, agent="b")
    made.release(second, Outcome(State.SUCCEEDED, 1, 0, exit_code=0, cost_usd=2.5))
    with closing(sqlite3.connect(file)) as raw:
        runs = raw.execute("SELECT attempt, agent, state, exit_code FROM run ORDER BY attempt").fetchall()
        assert runs == [(first.attempt, "a", "lost", None), (second.attempt, "b", "succeeded", 0)]
        assert raw.execute("SELECT attempt, funding, usd FROM charge").fetchall() == [(2, "grant", 2.5)]
        (hours,) = raw.execute("SELECT hours FROM charge").fetchone()
        assert 0 <= hours < 0.1


def test_more_columns_than_sqlite_allows(made):
    claim = claimed(made)
    with pytest.raises(DatabaseError, match=r"would have 2001 columns; this SQLite allows 1997"):
        made.store(claim, batch([0], *(floats(f"x{n}", 0.5) for n in range(2001))))


def test_a_table_of_somebody_else_is_left_alone(made, file):
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("CREATE TABLE digits (a INTEGER)")
    with pytest.raises(DatabaseError, match="'digits' of the database was not made by EMS"):
        made.store(claimed(made), batch([0], floats("x", 0.5)))


def test_a_column_whose_type_was_changed_is_named(made, file):
    claim = claimed(made)
    made.store(claim, batch([0], floats("x", 1.0)))
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("ALTER TABLE digits ADD COLUMN y DECIMAL(5, 2)")
    with pytest.raises(DatabaseError, match=r"column 'y' has the type DECIMAL\(5, 2\), which.*it was changed"):
        made.store(claim, batch([1], floats("x", 2.0)))


def test_a_damaged_file_is_told_by_a_check(made, file):
    with closing(sqlite3.connect(file)) as raw, raw:
        raw.execute("CREATE TABLE other (x TEXT)")
        raw.execute("CREATE INDEX by_x ON other (x)")
        raw.executemany("INSERT INTO other VALUES (?)", [(f"{n:0>100}",) for n in range(1000)])
        (page,) = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'other'").fetchone()
    made.close()
    with closing(sqlite3.connect(file, isolation_level=None)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as opened:
        opened.seek(4096 * (page - 1) + 8)
        opened.write(b"\xff" * 64)
    with closing(SqliteDatabase(file)) as damaged:
        assert any("is damaged" in fault and "whole copy" in fault for fault in damaged.check().faults)


def test_rows_that_somebody_removed_are_told_by_a_check(made, file):
    made.store(claimed(made), batch([0, 1, 2], floats("x", 1.0, 2.0, 3.0)))
    assert made.check().faults == ()
    with closing(sqlite3.connect(file)) as raw, raw:
        raw.execute("DELETE FROM digits WHERE point > 0")
    (fault,) = made.check().faults
    assert "results table 'digits' has 1 rows, but 3 were stored" in fault


def test_memory_is_flat_when_reading(made):
    claim = claimed(made)
    for start in range(0, 100_000, 10_000):
        points = list(range(start, start + 10_000))
        made.store(claim, batch(points, floats("x", *map(float, points))))
    tracemalloc.start()
    assert sum(len(part) for part in made.results("5f0c", chunk_rows=1000)) == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_reading_does_not_wake_the_collector_of_cycles(made):
    """Which looks at all objects of a notebook, again and again."""
    points = list(range(100_000))
    made.store(claimed(made), batch(points, floats("x", *map(float, points))))
    woken = []
    gc.collect()
    gc.callbacks.append(lambda phase, info: woken.append(info["generation"]) if phase == "start" else None)
    try:
        assert to_frame(made.results("5f0c")).x.sum() == sum(points)
    finally:
        gc.callbacks.pop()
    assert len(woken) < 20, "one for each thousand rows would be 100"


@pytest.mark.parametrize(("rows", "limit"), [(1, 10_000_000), (100, 25_000_000)])
def test_memory_is_flat_when_copying(made, rows, limit):
    source = claimed(made)
    for start in range(0, 50_000, 10_000):
        numbers = range(start, start + 10_000)
        columns = (floats(name, *map(float, numbers)) for name in "abcdefgh")
        made.store(source, batch([n // rows for n in numbers], *columns, rows=[n % rows for n in numbers]))
    points = 50_000 // rows
    target = claimed(made, id="target")
    tracemalloc.start()
    assert made.copy_points(target, "5f0c", ((n, n + 1) for n in range(points))) == points
    assert list(made.points("target")) == [("stored", range(1, points + 1))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < limit  # all rows would take 40 MB


def test_the_file_system_of_a_path(tmp_path):
    mounts = {"/": "ext4", str(tmp_path): "nfs4", str(tmp_path / "local"): "xfs"}
    assert filesystem(tmp_path / "a" / "ems.db", mounts) == "nfs4"
    assert filesystem(tmp_path / "local" / "ems.db", mounts) == "xfs"
    assert filesystem(Path("/ems.db"), mounts) == "ext4"


def test_a_network_file_system_is_refused(file, tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/vda / ext4 rw 0 0\nserver:/x {str(tmp_path.resolve()).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
    )
    monkeypatch.setattr(filesystems, "LINUX", mounts)
    with (
        closing(connect(URL, tmp_path / "a lab")) as database,
        pytest.raises(DatabaseError, match=r"network file system \(nfs4\)"),
    ):
        database.create()


def test_a_clock_that_is_set_back_gives_no_hours(made, file):
    with closing(SqliteDatabase(file)) as laptop:
        laptop._backend.clock = func.strftime("%Y-%m-%d %H:%M:%f", "now", "+1 hour", type_=UtcTime())
        claim = claimed(laptop, max_hours=2.0)
    made.release(claim, Outcome(State.FAILED, 0, 1))
    with made._backend.reading() as connection:
        assert connection.execute(text("SELECT hours FROM charge")).scalar_one() == 0
    made.reopen("5f0c")
    again = made.claim("5f0c", agent="a", lease_s=30)
    assert again.deadline_at - now(made).heartbeat_at == timedelta(hours=2)
