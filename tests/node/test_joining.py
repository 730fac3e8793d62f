"""Workers that join a sweep's driver from other machines: here, processes with nothing in common but the folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from ems.node.agent.certificate import make_certificate
from ems.node.driver.points import Order
from ems.spool.folder import read
from tests.processes import eventually

ROOT = Path(__file__).parents[2]
CODE = """
import os, time
def f(x):
    time.sleep(PAUSE_S)
    return {"y": 2 * x, "pid": os.getpid()}
"""
BOOT = "import sys; sys.path[0] = sys.argv[1]; from ems.node.driver."
JOIN = BOOT + "joining import main; main(*sys.argv[2:], '0')"
DRIVE = BOOT + "driver import main; main(sys.argv[2])"


class Joined:
    def __init__(self, folder: Path, points: int, pause_s: float, here: int = 0) -> None:
        self.folder, self.points = folder, points
        (folder / "code").mkdir()
        (folder / "code/job.py").write_text(CODE.replace("PAUSE_S", str(pause_s)))
        (folder / "done").write_bytes(b"")
        make_certificate(folder / "joining")
        order = Order("job:f", [{"x": {"range": [0, points - 1, 1]}}], str(folder / "code"), str(folder / "spool"),
                      str(folder / "done"), str(folder / "progress.json"), 2, 1,
                      joining=str(folder / "joining"), host="127.0.0.1", workers_here=here)  # fmt: skip
        (folder / "order.json").write_text(json.dumps(asdict(order)))
        self.driver = self.start(DRIVE, folder / "order.json")
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, boot: str, *words: object) -> subprocess.Popen[bytes]:
        log = (self.folder / "log").open("ab")
        command = [sys.executable, "-c", boot, str(ROOT), *map(str, words)]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def join(self, name: str) -> subprocess.Popen[bytes]:
        eventually((self.folder / "joining/scheduler.json").exists)
        self.workers.append(self.start(JOIN, self.folder / "joining", name))
        return self.workers[-1]

    def progress(self) -> dict[str, float]:
        file = self.folder / "progress.json"
        return json.loads(file.read_text()) if file.exists() else {"done": 0, "workers": 0}

    def rows(self) -> list[int]:
        assert self.driver.wait(120) == 0, (self.folder / "log").read_text()
        batches = [read(path) for path in sorted((self.folder / "spool").glob("*.batch"))]
        found = [y for batch in batches for column in batch.columns if column.name == "y" for y in column.values]
        assert [mark for batch in batches for mark in batch.marks] == []
        return sorted(found)

    def end(self) -> None:
        for process in [self.driver, *self.workers]:
            process.kill()
            process.wait()


@pytest.fixture
def joined(tmp_path):
    made = []

    def make(*arguments, **options):
        made.append(Joined(tmp_path, *arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_workers_that_join_compute_all_points_once_and_leave_with_the_driver(joined):
    sweep = joined(400, 0.002)
    workers = [sweep.join("a"), sweep.join("b")]
    assert sweep.rows() == [2 * x for x in range(400)]
    assert [worker.wait(30) is not None for worker in workers] == [True, True]


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_worker_that_is_taken_away_is_no_fault_of_its_points(joined, end):
    sweep = joined(40, 0.2)
    first = sweep.join("a")
    eventually(lambda: sweep.progress()["done"] > 2)
    getattr(first, end)()
    began = time.monotonic()
    first.wait(60)
    sweep.join("b")
    assert sweep.rows() == [2 * x for x in range(40)]
    assert time.monotonic() - began < 100


def test_who_has_not_the_key_is_refused(joined, tmp_path):
    sweep = joined(5, 0.0)
    eventually((tmp_path / "joining/scheduler.json").exists)
    other = tmp_path / "other"
    make_certificate(other)
    (other / "scheduler.json").write_text((tmp_path / "joining/scheduler.json").read_text())
    stranger = sweep.start(JOIN, other, "x")
    time.sleep(3)
    assert sweep.progress()["workers"] == 0 and sweep.progress()["done"] == 0
    stranger.kill()
    stranger.wait()
    sweep.join("a")
    assert sweep.rows() == [2 * x for x in range(5)]
