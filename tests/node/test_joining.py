"""Workers that join a sweep's driver from other machines: here, processes with nothing in common but the folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from ems.node.agent.certificate import make_certificate
from ems.node.driver.points import Order
from ems.node.programs.order import ProgramOrder
from ems.spool.folder import read
from tests.processes import PATIENCE_S, eventually

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
PROGRAMS = "import sys; sys.path[0] = sys.argv[1]; from ems.node.programs.driver import main; main(sys.argv[2])"
# Each point notes the process that it leaves behind.
PROGRAM = """
import os, subprocess, sys, time
left = subprocess.Popen(["sleep", "300"], start_new_session=True)
with open("../../../sleepers", "a") as file:
    file.write(f"{left.pid}\\n")
time.sleep(0.2)
print(f"y,node\\n{2 * int(sys.argv[1])},{os.environ['NODE']}")
"""


class Joined:
    """A sweep whose driver and workers are processes of the test: of a function, or of a program."""

    def __init__(self, folder: Path, points: int, pause_s: float, here: int = 0, program: str = "") -> None:
        self.folder, self.points = folder, points
        (folder / "code").mkdir()
        (folder / "code/job.py").write_text(program or CODE.replace("PAUSE_S", str(pause_s)))
        (folder / "done").write_bytes(b"")
        make_certificate(folder / "joining")
        order = self.of_program(here) if program else Order("job:f", **self.ordered(here))
        (folder / "order.json").write_text(json.dumps(asdict(order)))
        self.driver = self.start(PROGRAMS if program else DRIVE, folder / "order.json")
        self.workers: list[subprocess.Popen[bytes]] = []

    def ordered(self, here: int) -> dict[str, Any]:
        folder = self.folder
        return {
            "grids": [{"x": {"range": [0, self.points - 1, 1]}}], "code": str(folder / "code"),
            "spool": str(folder / "spool"), "done": str(folder / "done"), "progress": str(folder / "progress.json"),
            "workers": 2, "threads": 1, "joining": str(folder / "joining"), "host": "127.0.0.1", "workers_here": here,
        }  # fmt: skip

    def of_program(self, here: int) -> ProgramOrder:
        return ProgramOrder(
            function="", command=[sys.executable, "job.py", "{x}"], env={}, variables={"PATH": os.environ["PATH"]},
            parameters={}, protocol="process", folder=str(self.folder / "work"), left=str(self.folder / "left"),
            checkpoints="",
            results={"table": "r", "stdout": "csv"}, python=sys.executable, source=str(ROOT), of_machine=["NODE"],
            **self.ordered(here),
        )  # fmt: skip

    def start(self, boot: str, *words: object, **variables: str) -> subprocess.Popen[bytes]:
        log = (self.folder / "log").open("ab")
        command = [sys.executable, "-c", boot, str(ROOT), *map(str, words)]
        env = os.environ | {"PYTHONFAULTHANDLER": "1"} | variables
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=env)

    def join(self, name: str) -> subprocess.Popen[bytes]:
        eventually((self.folder / "joining/scheduler.json").exists)
        self.workers.append(self.start(JOIN, self.folder / "joining", name, NODE=name))
        return self.workers[-1]

    def progress(self) -> dict[str, float]:
        file = self.folder / "progress.json"
        return json.loads(file.read_text()) if file.exists() else {"done": 0, "workers": 0}

    def rows(self) -> list[Any]:
        return sorted(self.values("y"))

    def values(self, name: str) -> list[Any]:
        """Of a column, once the driver has ended well."""
        assert self.driver_code() == 0, (self.folder / "log").read_text()
        batches = [read(path) for path in sorted((self.folder / "spool").glob("*.batch"))]
        assert [mark for batch in batches for mark in batch.marks] == []
        return [
            value for batch in batches for column in batch.columns if column.name == name for value in column.values
        ]

    def driver_code(self) -> int:
        """Once the driver has ended. Of one that does not, the log tells where all processes of the sweep are."""
        try:
            return self.driver.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            for process in [self.driver, *self.workers]:
                process.send_signal(signal.SIGABRT)
                process.wait(60)
            raise AssertionError(f"{self.progress()}\n{(self.folder / 'log').read_text()}") from None

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


LARGE = """
import pathlib
def f(x):
    pathlib.Path(f"computed-{x}").touch()
    return {"y": 2 * x, "text": "a" * 30_000_000}
"""


def test_what_a_worker_had_computed_when_it_was_lost_is_computed_again(joined, tmp_path):
    """It is lost while the driver fetches what it has: that takes a while here, and each is lost at another moment."""
    sweep = joined(8, 0.0)
    (tmp_path / "code/job.py").write_text(LARGE)
    for number in range(6):
        before = len(list((tmp_path / "code").glob("computed-*")))
        worker = sweep.join(f"w{number}")
        eventually(lambda before=before: len(list((tmp_path / "code").glob("computed-*"))) > before)
        time.sleep(0.05 * number)
        worker.kill()
        worker.wait()
    sweep.join("last")
    assert sweep.rows() == [2 * x for x in range(8)]


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


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_programs_run_on_workers_that_join_and_leave_nothing_behind(joined, tmp_path, end):
    sweep = joined(40, 0.0, program=PROGRAM)
    first = sweep.join("a")
    eventually(lambda: sweep.progress()["done"] > 2)
    sweep.join("b")
    eventually(lambda: sweep.progress()["workers"] == 2)
    getattr(first, end)()
    first.wait(60)
    assert sweep.rows() == [2 * x for x in range(40)]
    assert set(sweep.values("node")) == {"a", "b"}
    assert sweep.workers[1].wait(30) is not None
    sleepers = [int(line) for line in (tmp_path / "sleepers").read_text().split()]
    alive = [pid for pid in sleepers if psutil.pid_exists(pid)]
    assert len(sleepers) >= 40 and len(alive) <= (1 if end == "kill" else 0), "a killed job is cleaned up by Slurm"
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


ENDING = """
import atexit, os, pathlib, time
def f(x):
    pathlib.Path("began").touch()
    time.sleep(0.05)
    return {"y": 2 * x, "pid": os.getpid()}
atexit.register(lambda: pathlib.Path(f"left-{os.getpid()}").touch())
"""


def test_an_idle_worker_process_ends_as_it_likes(joined, tmp_path):
    sweep = joined(20, 0.0, here=1)
    (tmp_path / "code/job.py").write_text(ENDING)
    sweep.join("a")
    sweep.join("b")
    assert sweep.rows() == [2 * x for x in range(20)]
    left = {int(file.name.partition("-")[2]) for file in (tmp_path / "code").glob("left-*")}
    assert left == set(sweep.values("pid"))


def test_worker_processes_that_are_stopped_are_ended_once_there_is_nothing_else_to_wait_for(joined, tmp_path):
    sweep = joined(6, 0.0)
    (tmp_path / "code/job.py").write_text(ENDING.replace("0.05", "2"))
    worker = sweep.join("a")
    eventually((tmp_path / "code/began").exists)
    (process,) = psutil.Process(worker.pid).children()
    process.suspend()
    assert sweep.rows() == [2 * x for x in range(6)]
    assert "it had been stopped" in (tmp_path / "log").read_text()
