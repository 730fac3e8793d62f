"""The promises, with many writers and many rows."""

from __future__ import annotations

import statistics
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psutil

from ems.databases import Database, Outcome, State, connect
from ems.lab.patience import Patience
from ems.spool.batch import Batch, Column
from tests.databases.cases import LONG_S, WORKERS, Address, DatabaseCase, at_once, batch, claimed, ints, now, table

WRITERS = 64
ROWS = 1_000_000
LOOKS_APART_S = 0.05


def write_some(address: Address, numbers: range) -> None:
    """In another process: each of these writers, in a thread and with a client of its own, makes one whole run.

    As an agent does, one tries again where nothing was stored because of the others.
    """

    def write(number: int) -> None:
        patience = Patience(print)
        with closing(connect(*address)) as client:
            claim = claimed(client, f"writer-{number}", agent=str(number))
            for point in range(3):
                rows = batch([point], ints(f"c{number}", number), ints(f"d{point}", point))
                patience(lambda rows=rows: client.store(claim, rows))
            client.beat(claim, LONG_S, points_done=3)
            client.release(claim, Outcome(State.SUCCEEDED, 3, 0))

    at_once([lambda number=number: write(number) for number in numbers])


def numbered(numbers: range) -> Batch:
    columns = tuple(Column(name, "float64", array("d", numbers)) for name in "abcd")
    return Batch(array("q", numbers), array("q", bytes(8 * len(numbers))), columns, replaces=tuple(numbers))


class Memory:
    """By how many MB this process's peak grows after the first fifth of the rows."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._early_bytes = self._late_bytes = 0

    def look(self, rows: int) -> None:
        now_bytes = self._process.memory_info().rss
        if rows <= ROWS // 5:
            self._early_bytes = max(self._early_bytes, now_bytes)
        else:
            self._late_bytes = max(self._late_bytes, now_bytes)

    @property
    def grown_mb(self) -> float:
        return max(0, self._late_bytes - self._early_bytes) / 1e6


@contextmanager
def looked_at(database: Database) -> Iterator[list[float]]:
    """How long each look at the experiment's progress takes meanwhile."""
    took, done = [], threading.Event()

    def look() -> None:
        while not done.wait(LOOKS_APART_S):
            began = time.perf_counter()
            now(database)
            took.append(time.perf_counter() - began)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield took
    finally:
        done.set()
        thread.join()


class VolumeContract(DatabaseCase):
    rows_at_once = 20_000
    flat_mb = 40.0
    """In which neither the 48 MB of all numbers fit, nor the 200 MB of their Python objects."""

    def test_64_writers_add_columns_to_one_table(self, database, address, processes):
        each = WRITERS // WORKERS
        writing = [processes.submit(write_some, address, range(n * each, n * each + each)) for n in range(WORKERS)]
        for future in writing:
            future.result()
        for number in range(WRITERS):
            found = table(database, f"writer-{number}")
            assert (found[f"c{number}"], found["d1"]) == ([number] * 3, [None, 1, None])
            assert len(found) == 2 + WRITERS + 3
            row = now(database, f"writer-{number}")
            assert (row.state, row.rows_stored, row.points_done) == (State.SUCCEEDED, 3, 3)

    def test_a_million_rows(self, database, connect_again, record_property):
        writing, reading = Memory(), Memory()
        claim = claimed(database)
        began = time.perf_counter()
        with looked_at(connect_again()) as looks:
            for start in range(0, ROWS, self.rows_at_once):
                database.store(claim, numbered(range(start, start + self.rows_at_once)))
                writing.look(start)
        written_s = time.perf_counter() - began
        assert now(database).rows_stored == ROWS
        assert list(database.points("5f0c")) == [("stored", range(ROWS))]
        read = 0
        for part in database.results("5f0c"):
            assert part.points == array("q", range(read, read + len(part)))
            assert part.columns[3].values == array("d", part.points)
            read += len(part)
            reading.look(read)
        read_s = time.perf_counter() - began - written_s
        measured = {"look_s": statistics.median(looks), "written_s": written_s, "read_s": read_s}
        measured |= {"writing_mb": writing.grown_mb, "reading_mb": reading.grown_mb}
        record_property("measured", {name: round(value, 3) for name, value in measured.items()})
        assert read == ROWS
        assert writing.grown_mb < self.flat_mb and reading.grown_mb < self.flat_mb
