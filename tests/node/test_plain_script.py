"""A sweep's function meets what it meets in a plain script that calls it in a loop: compared bit by bit.

Whatever belongs to a process or a thread (context variables, signals, global generators, the working directory) could
differ: the next such thing belongs into `plain_functions`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.node.driving import Start, eventually, numbers, start, zipped
from tests.processes import PATIENCE_S

__all__ = ["start", "zipped"]

CODE = (Path(__file__).parent / "plain_functions.py").read_text()
POINTS = 8
LOOP = """
import json, os, sys
import jobs

if __name__ == "__main__":
    home = os.getcwd()
    for n in range({points}):
        row = jobs.{name}(n)
        os.chdir(home)
        print("row", json.dumps(row), flush=True)
"""
FUNCTIONS = [
    "context",
    "module_random",
    "seeded_random",
    "main_thread",
    "signals",
    "processes",
    "joblib_processes",
    "forks",
    "threads",
    "asynchronous",
    "database",
    "folder",
    "noise",
    "environment",
    "figure",
]


def scripted(name: str, folder: Path) -> list[dict[str, object]]:
    (folder / "script.py").write_text(LOOP.format(points=POINTS, name=name))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("row ")]


@pytest.mark.parametrize("limits", [{}, {"point_timeout_s": 50.0}], ids=["", "timed"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_meets_what_it_meets_in_a_script(name: str, limits: dict[str, float], start: Start, tmp_path: Path) -> None:
    run = start(name, numbers(POINTS), code=CODE, workers=1, **limits)
    assert run.wait() == 0, run.log
    assert {point: mark.error for point, mark in run.marks().items()} == {}, run.log
    rows = run.rows()
    swept = [{key: value for key, value in rows[(n, 0)].items() if key != "n"} for n in range(POINTS)]
    assert swept == scripted(name, tmp_path / "code")


LEFT_OVER = f"""{CODE}
workers = None
def leaving(n):
    global workers
    workers = workers or multiprocessing.Pool(2)
    subprocess.Popen(["sleep", "1000"])
    return {{"x": sum(workers.map(square, range(n)))}}


def hanging(n):
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,)).start()
    time.sleep(1000 if n == 3 else 0)
    return {{"x": n}}
"""


def test_what_a_function_leaves_ends_with_its_worker(start: Start) -> None:
    run = start("leaving", numbers(POINTS), code=LEFT_OVER)
    started: set[psutil.Process] = set()
    while run.process.poll() is None:
        started.update(run.everything())
        time.sleep(0.02)
    assert run.wait() == 0, run.log
    assert len(run.rows()) == POINTS and len(started) > POINTS
    assert psutil.wait_procs(started, timeout=PATIENCE_S)[1] == []


def test_what_a_function_leaves_ends_with_a_worker_that_is_ended(start: Start) -> None:
    """Processes that it forked hold the pipe by which the worker answers."""
    run = start("hanging", numbers(6), code=LEFT_OVER, point_timeout_s=1.0, workers=1)
    started: set[psutil.Process] = set()
    while run.process.poll() is None:
        started.update(run.everything())
        time.sleep(0.02)
    assert run.wait() == 0, run.log
    assert list(run.marks()) == [3] and len(run.rows()) == 5
    assert psutil.wait_procs(started, timeout=PATIENCE_S)[1] == []


def test_a_worker_ends_with_a_killed_driver_whatever_it_has_forked(start: Start) -> None:
    """What a function has forked is the keeper's to end, by the job's marker."""
    run = start("hanging", {"n": [3]}, code=LEFT_OVER)
    eventually(lambda: len(run.workers()) == 2, run)
    worker, forked = sorted(run.workers(), key=lambda process: process.ppid() != run.process.pid)
    run.process.kill()
    worker.wait(PATIENCE_S)
    forked.kill()
