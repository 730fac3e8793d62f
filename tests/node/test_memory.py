"""What a run may take of a machine's memory, by real processes."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HOLD = "import sys, time; held = b'x' * int(sys.argv[1]); print('has it', flush=True); time.sleep(600)"
MAPPED = """
import mmap, sys, time
with open(sys.argv[1], "r+b") as file:
    held = mmap.mmap(file.fileno(), 0)
    sum(held[0 :: mmap.PAGESIZE])
    print("has it", flush=True)
    time.sleep(600)
"""
RUN = """
import functools, json, subprocess, sys
from ems.node import memory
code, arguments, limits, share_gb = json.loads(sys.argv[1])
children = [subprocess.Popen([sys.executable, "-c", code, str(each)], stdout=subprocess.PIPE) for each in arguments]
assert all(child.stdout.readline() == b"has it\\n" for child in children)
numbers = {child.pid: number for number, child in enumerate(children)}
over = [numbers[found.pid] if (found := memory.over(limit)) else None for limit in limits]
said = []
if share_gb:
    memory.keep_to(share_gb, said.append)
    children[-1].wait()
ends = [child.poll() for child in children]
for child in children:
    child.kill()
print(json.dumps({"over": over, "said": said, "ends": ends, "pids": [*numbers]}))
"""
MB = 1_000_000


def run(code: str, arguments: Sequence[object], limits: Sequence[int] = (), share_gb: float = 0.0) -> dict[str, Any]:
    """A process that has a child for each argument: which of them has to go by each limit, and how it keeps to one."""
    given = json.dumps([code, [*map(str, arguments)], [*limits], share_gb])
    command = [sys.executable, "-c", RUN, given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_past_the_limit_the_largest_process_has_to_go():
    assert run(HOLD, [50 * MB, 200 * MB], [500 * MB, 150 * MB])["over"] == [None, 1]


def test_a_run_that_takes_more_than_its_share_loses_its_largest_process():
    found = run(HOLD, [50 * MB, 200 * MB], share_gb=0.15)
    pid = found["pids"][1]
    assert found["said"] == [f"the run took more than its 0.15 GB of memory: its largest process {pid} was ended"]
    assert found["ends"] == [None, -9]


def test_what_processes_share_counts_once(tmp_path: Path):
    file = tmp_path / "shared"
    with file.open("wb") as opened:
        opened.truncate(200 * MB // mmap.PAGESIZE * mmap.PAGESIZE)
    first, second = run(MAPPED, [file] * 3, [400 * MB, 150 * MB])["over"]
    assert (first, second is None) == (None, False)
