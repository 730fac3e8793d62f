"""What goes wrong while a sweep runs, with a real agent, driver, workers, spool and database. Always: every point is
stored once or recorded as failed, the counters are right, nothing is left running. `drill_faults.py` takes longer.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections import Counter

import psutil
import pytest

from ems.databases import State
from tests import tally
from tests.node.bench import Bench, bench, family, locked
from tests.node.sweeping import Sweeping
from tests.processes import PATIENCE_S, eventually, having, matching

pytestmark = pytest.mark.trial
__all__ = ["bench"]

MB = 10**6

NOTED = """
import os, pathlib, sys, time
run_dir = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parent
def note(x):
    with open(run_dir / "calls", "a") as calls:
        calls.write(f"{x}\\n")
"""
SLOW = f"""{NOTED}
def f(x):
    note(x)
    time.sleep(0.05)
    return {{"y": x / 7}}
"""
ZOO = f"""{NOTED}
import ctypes
def f(x):
    note(x)
    if x == 5:
        raise ValueError("no five")
    if x == 15:
        time.sleep(1000)
    if x == 25:
        os._exit(7)
    if x == 35:
        hoard = []
        while True:
            hoard.append(b"x" * 10**7 if len(hoard) < 100 else b"")
            time.sleep(0.002)
    if x == 45:
        return object()
    if x == 55:
        return {{"y": "text"}}
    if x == 65:
        ctypes.string_at(0)
    if x == 75:
        sys.exit("leaving")
    if x == 85:
        return {{"y": 0.5, "long": "z" * 10**7}}
    return {{"y": x / 7}}
"""
LARGE = f"""{NOTED}
def f(x):
    note(x)
    return {{"y": 0.5, "long": str(x) + "z" * 10**7 if x >= 2000 else ""}}
"""


class Faulty(Sweeping):
    """A sweep to which something happens. All that runs of it belongs to the agent's tree."""

    agent: subprocess.Popen[bytes]

    def begin(self, least: int = 3) -> None:
        """Start it, until so many points are stored."""
        self.agent = self.bench.start(self.run_dir)
        eventually(lambda: len(self.stored()) >= least)

    def tree(self) -> list[psutil.Process]:
        agent = psutil.Process(self.agent.pid)
        return [agent, *agent.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        return having("ems.node.driver.worker", family(self.run_dir))

    def log(self) -> str:
        return (self.run_dir / "job.log").read_text()

    def assert_whole(self, failed: frozenset[int] = frozenset(), attempts: int = 1) -> None:
        """Each point once, stored or failed; all that ran has ended."""
        try:
            assert self.agent.wait(PATIENCE_S) == 0
        except subprocess.TimeoutExpired as error:
            tree = [(one.pid, one.status(), one.cmdline()) for one in self.tree()]
            raise AssertionError(f"{tree}\n{self.log()}\n{(self.run_dir / 'agent.log').read_text()}") from error
        row = self.bench.row()
        state = State.FAILED if failed else State.SUCCEEDED
        counters = (row.state, row.points_done, row.points_failed, row.rows_stored, row.machines, row.attempt)
        done = self.points - len(failed)
        assert counters == (state, done, len(failed), done, 0, attempts), self.log()
        tally.compare([(x,) for x in self.stored()], [(x,) for x in range(self.points) if x not in failed], key=1)
        assert self.failed() == sorted(failed)
        assert self.spooled() == []
        assert family(self.run_dir) == []


def test_whatever_points_do_their_neighbours_are_stored(bench: Bench) -> None:
    sweep = Faulty(bench, code=ZOO, points=90, workers=2, job={"point_timeout_s": 6.0, "memory_mb": 500})
    sweep.begin()
    bad = frozenset(range(5, 85, 10))
    sweep.assert_whole(failed=bad)
    errors = {mark.point: mark.error for mark in bench.database.failures("e1")}
    said = ["no five", "point_timeout_s: 6", "exit code 7", "memory_mb: 500", "returned an object", "float64 so far"]
    for point, words in zip(sorted(bad), [*said, "SIGSEGV", "SystemExit: leaving"], strict=True):
        assert words in errors[point]


def test_large_results_stay_out_of_memory(bench: Bench) -> None:
    """10 MB each, after cheap points that let the batches grow."""
    sweep = Faulty(bench, code=LARGE, points=2040, workers=2)
    sweep.begin(least=1)
    agent, driver = psutil.Process(sweep.agent.pid), sweep.process("ems.node.driver.driver")
    largest_bytes, memory_bytes = 0, {agent: 0, driver: 0}
    while sweep.agent.poll() is None:
        for path in matching(sweep.run_dir, "spool-*/*.batch"):
            with contextlib.suppress(FileNotFoundError):  # stored meanwhile
                largest_bytes = max(largest_bytes, path.stat().st_size)
        for process, most in memory_bytes.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                memory_bytes[process] = max(most, process.memory_info().rss)
        time.sleep(0.02)
    sweep.assert_whole()
    assert 10 * MB <= largest_bytes < 25 * MB
    assert max(memory_bytes.values()) < 350 * MB, memory_bytes


def test_a_worker_that_is_stopped_for_good_is_replaced_when_only_it_is_waited_for(bench: Bench) -> None:
    sweep = Faulty(bench, code=SLOW, points=100, workers=2)
    sweep.begin()
    stopped = sweep.workers()[0]
    stopped.suspend()
    sweep.assert_whole()
    assert not stopped.is_running()
    assert "had been stopped" in sweep.log() and "memory" not in sweep.log()


@pytest.mark.drill
def test_a_point_that_stops_its_own_worker_is_found(bench: Bench) -> None:
    code = SLOW.replace("time.sleep(0.05)", "x != 2 or os.kill(os.getpid(), 19)")  # SIGSTOP
    sweep = Faulty(bench, code=code, points=6, workers=2)
    sweep.begin(least=1)
    sweep.assert_whole(failed=frozenset({2}))
    (mark,) = bench.database.failures("e1")
    assert "Killed its worker, 3 times: it had been stopped, as by SIGSTOP, and was ended." in mark.error


def test_workers_that_are_stopped_and_go_on_lose_nothing(bench: Bench) -> None:
    sweep = Faulty(bench, code=SLOW, points=100, workers=2, job={"point_timeout_s": 1.0})
    sweep.begin()
    workers = sweep.workers()
    for process in workers:
        process.suspend()
    time.sleep(4)
    for process in workers:
        process.resume()
    sweep.assert_whole()
    assert sweep.calls() == Counter(range(100))


def test_a_laptop_that_sleeps_for_longer_than_the_lease_goes_on(bench: Bench) -> None:
    sweep = Faulty(bench, code=SLOW, points=150, workers=2, lease_s=1.0)
    sweep.begin()
    tree = sweep.tree()
    with locked(bench):  # nobody of them is within a transaction
        for process in tree:
            process.suspend()
    eventually(lambda: bench.row().state is State.LOST)
    time.sleep(3)
    for process in reversed(tree):
        process.resume()
    sweep.assert_whole()
    assert sweep.calls() == Counter(range(150))


def test_a_disk_that_is_full_for_a_while_is_waited_for(bench: Bench) -> None:
    """What is to be written goes to /dev/full, which is as full as a disk can be."""
    sweep = Faulty(bench, code=SLOW, points=100, workers=2)
    sweep.begin()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        for name in ["progress.json.tmp", *(f"spool-1/{number:08d}.batch.tmp" for number in range(1, 300))]:
            with contextlib.suppress(FileExistsError):  # a batch is being written, or nothing has tried to
                (sweep.run_dir / name).symlink_to("/dev/full")
        time.sleep(0.05)
    for path in [sweep.run_dir / "progress.json.tmp", *matching(sweep.run_dir, "spool-*/*.tmp")]:
        if path.is_symlink():
            path.unlink(missing_ok=True)
    sweep.assert_whole()
    assert "No space left on device" in sweep.log()
    assert sweep.calls() == Counter(range(100))
