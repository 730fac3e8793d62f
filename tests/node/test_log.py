from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ems.node.job.log import LEFT_OUT, BoundedLog, Pump
from tests.processes import PATIENCE_S


def written(file: Path, pieces: list[bytes], before: bytes = b"") -> bytes:
    """What the log has after these pieces; its head has 100 bytes, its tail 200."""
    file.write_bytes(before)
    log = BoundedLog(file, head=100, tail=200)
    for piece in pieces:
        log.write(piece)
        assert file.stat().st_size < len(before) + 100 + 2 * 200 + 100
    return file.read_bytes()


LINES = [b"line %d\n" % number for number in range(1000)]


@pytest.mark.parametrize(
    "pieces", [LINES, [b"".join(LINES)], [b"".join(LINES)[i : i + 37] for i in range(0, 9000, 37)]]
)
@pytest.mark.parametrize("before", [b"", b"--- attempt 1 ---\n" * 50])
def test_of_much_the_beginning_and_the_end_are_kept(tmp_path: Path, pieces: list[bytes], before: bytes) -> None:
    whole, found = b"".join(pieces), written(tmp_path / "log", pieces, before)
    assert found.startswith(before)
    (note,) = LEFT_OUT.finditer(found)
    head, tail = found[len(before) : note.start()], found[note.end() :]
    assert whole.startswith(head + b"\n") and 80 < len(head) <= 100
    assert whole.endswith(tail) and 190 < len(tail) <= 400
    assert tail.startswith(b"line ")
    assert len(head) + len(tail) + int(note[1].replace(b",", b"")) == len(whole)


def test_what_has_room_is_kept_whole(tmp_path: Path) -> None:
    pieces = [b"x" * 50] * 10
    assert written(tmp_path / "log", pieces) == b"x" * 500


def test_one_endless_line_is_cut(tmp_path: Path) -> None:
    found = written(tmp_path / "log", [b"x" * 77] * 1000)
    (note,) = LEFT_OUT.finditer(found)
    assert found.count(b"x") + int(note[1].replace(b",", b"")) == 77_000


def test_a_pump_ends_with_its_writers_or_when_asked(tmp_path: Path) -> None:
    read, write = os.pipe()
    pump = Pump(read, BoundedLog(tmp_path / "log"))
    pump.start()
    os.write(write, b"a\nb")
    pump.finish()  # while a writer that nobody knows holds its end
    assert (tmp_path / "log").read_bytes() == b"a\nb\n"
    os.close(write)
    other, end = os.pipe()
    pump = Pump(other, BoundedLog(tmp_path / "log"))
    os.write(end, b"c\n")
    os.close(end)
    pump.start()
    pump.join(PATIENCE_S)
    assert (tmp_path / "log").read_bytes() == b"a\nb\nc\n"


def test_a_pump_leaves_a_writer_that_does_not_stop(tmp_path: Path) -> None:
    read, write = os.pipe()
    stop = threading.Event()
    writer = threading.Thread(target=lambda: [os.write(write, b"x" * 1000) for _ in iter(stop.is_set, True)])
    writer.start()
    pump = Pump(read, BoundedLog(tmp_path / "log"))
    pump.start()
    pump.finish()
    stop.set()
    while not writer.join(0.01) and writer.is_alive():
        os.read(read, 2**20)
