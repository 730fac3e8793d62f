"""What a run may take of a machine's memory, by real processes."""

from __future__ import annotations

import mmap
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ems.node import memory

HOLD = "import sys, time; held = b'x' * int(sys.argv[1]); print('has it', flush=True); time.sleep(600)"
MAPPED = """
import mmap, sys, time
with open(sys.argv[1], "r+b") as file:
    held = mmap.mmap(file.fileno(), 0)
    sum(held[0 :: mmap.PAGESIZE])
    print("has it", flush=True)
    time.sleep(600)
"""
KEPT = """
import functools, subprocess, sys
from ems.node import memory
sizes = (50_000_000, 200_000_000)
children = [subprocess.Popen([sys.executable, "-c", sys.argv[1], str(size)], stdout=subprocess.PIPE) for size in sizes]
for child in children:
    child.stdout.readline()
print(children[1].pid, flush=True)
memory.keep_to(0.15, functools.partial(print, flush=True))
children[1].wait()
print(children[0].poll(), children[1].returncode)
children[0].kill()
"""
MB = 1_000_000


class Children:
    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, code: str, argument: object) -> psutil.Process:
        """Returns once it has what it holds."""
        child = subprocess.Popen([sys.executable, "-c", code, str(argument)], stdout=subprocess.PIPE, text=True)
        self.started.append(child)
        assert child.stdout and child.stdout.readline() == "has it\n"
        return psutil.Process(child.pid)


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    for each in children.started:
        each.kill()
        each.communicate()


def test_past_the_limit_the_largest_process_is_ended_and_no_other(children):
    small, large = children.start(HOLD, 50 * MB), children.start(HOLD, 200 * MB)
    assert memory.over(500 * MB) is None
    assert memory.over(150 * MB) == large
    assert small.is_running()


def test_a_run_that_takes_more_than_its_share_loses_its_largest_process():
    done = subprocess.run([sys.executable, "-c", KEPT, HOLD], capture_output=True, text=True, check=True, timeout=60)
    pid, said, *codes = done.stdout.splitlines()
    assert said == f"the run took more than its 0.15 GB of memory: its largest process {pid} was ended"
    assert codes == ["None -9"]


def test_what_processes_share_counts_once(children, tmp_path: Path):
    file = tmp_path / "shared"
    with file.open("wb") as opened:
        opened.truncate(200 * MB // mmap.PAGESIZE * mmap.PAGESIZE)
    for _ in range(3):
        children.start(MAPPED, file)
    assert memory.over(400 * MB) is None
    assert memory.over(150 * MB) is not None
