"""Commands in a lab that has lived for years against the same ones in a young lab: seconds, and memory in MB.

python benchmarks/old_labs.py [STACKS] [EXPERIMENTS] [COPIED] [ROWS] [FRAME]

Of SQLite. Then the newest experiments by one query against loading all experiments, as EMS once did; how much of a CPU
`ems watch` takes; and a copy of COPIED experiments with ROWS rows, by itself and a row of the registry at a time.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
from old_lab import fill

from ems.databases import Database, connect, copying
from ems.databases.comparing import TABLES

YOUNG = (20, 100)
URL = "sqlite:///ems.db"
COMMANDS = ("status stack0007", "results stack0007", "failures stack0007", "logs stack0007", "status", "doctor")
ROUNDS = 3
SETTLED_S, WATCHED_S = 6.0, 20.0

FRAME = """
import sys, time
from pathlib import Path
import pandas
import pyarrow as pa
from ems.databases import connect
from ems.views.frames import to_frame
from ems.views.results import to_arrow

def by_arrow(batches):
    return pa.concat_tables(map(to_arrow, batches)).to_pandas()

def peak():
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with that of the process that started it
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

database, make = connect("sqlite:///ems.db", Path()), globals()[sys.argv[1]]
id = database.newest()[0].id
before, began = peak(), time.perf_counter()
frame = make(database.results(id))
print(time.perf_counter() - began, (peak() - before) / frame.memory_usage(index=False).sum())
"""


def made(root: Path, stacks: int, experiments: int, rows: int, running: int = 0) -> Path:
    root.mkdir()
    config = f"config:\n  ems:lab_id: {uuid.uuid4()}\n  ems:database: {URL}\n"
    (root / "Pulumi.yaml").write_text(f"name: lab\nruntime: python\n{config}", encoding="utf-8")
    with closing(connect(URL, root)) as database:
        fill(database, stacks, experiments, rows, running)
    return root


def ran(root: Path, command: str) -> tuple[float, float]:
    """Seconds, and the greatest memory in MB; of several rounds the best."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "ems.cli", *command.split()],
            cwd=root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, _, usage = os.wait4(process.pid, 0)
        found.append((time.perf_counter() - began, usage.ru_maxrss / 1024))
    return min(found)


def compare_commands(young: Path, old: Path) -> None:
    say(f"{'':20} {'young':>8} {'old':>8} {'ratio':>6} {'young':>9} {'old':>9}")
    for command in COMMANDS:
        (few_s, few_mb), (many_s, many_mb) = ran(young, command), ran(old, command)
        times = f"{few_s:>6.2f} s {many_s:>6.2f} s {many_s / few_s:>6.2f}"
        say(f"{command:20} {times} {few_mb:>6.0f} MB {many_mb:>6.0f} MB")


def compare_queries(old: Path) -> None:
    with closing(connect(URL, old)) as database:
        load_s = timed(lambda: {each.registration.stack: each for each in database.experiments()})
        for name, stacks in (("one stack", ["stack0007"]), ("all stacks", None)):
            newest_s = timed(lambda stacks=stacks: database.newest(stacks))
            say(f"newest of {name}: {newest_s * 1000:.1f} ms, of all loaded {load_s:.2f} s: 1/{load_s / newest_s:,.0f}")


def timed(call: Callable[[], object]) -> float:
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def watch(root: Path) -> None:
    """On a terminal, from when it has begun on."""
    mine, its = pty.openpty()
    threading.Thread(target=drain, args=(mine,), daemon=True).start()
    command = [sys.executable, "-m", "ems.cli", "watch"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, cwd=root, stdin=its, stdout=its, stderr=its, env=environment)
    time.sleep(SETTLED_S)
    watched = psutil.Process(process.pid)
    before = watched.cpu_times()
    time.sleep(WATCHED_S)
    after = watched.cpu_times()
    process.terminate()
    process.wait()
    share = (after.user + after.system - before.user - before.system) / WATCHED_S
    say(f"ems watch: {share:.1%} of a CPU (aim: 2 %)")


def frames(root: Path) -> None:
    """`ems.results` of one experiment, and the same rows by way of Arrow tables, each in a process of its own."""
    for name in ("to_frame", "by_arrow"):
        done = subprocess.run([sys.executable, "-c", FRAME, name], cwd=root, capture_output=True, text=True, check=True)
        took_s, share = map(float, done.stdout.split())
        say(f"{name}: {took_s:.1f} s, {share:.2f} of the frame's memory (aim: 15 s for 10 million rows, 1.3)")


def drain(end: int) -> None:
    try:
        while os.read(end, 65536):
            pass
    except OSError:
        return


def copy(root: Path) -> None:
    with closing(connect(URL, root)) as source, closing(connect("sqlite:///there.db", root)) as target:
        took_s = timed_once(lambda: copying.copy(source, target, lambda _: None))
        say(f"database copy: {took_s:.1f} s (aim: 20 s)")
    with closing(connect(URL, root)) as source, closing(connect("sqlite:///rows.db", root)) as target:
        target.create()
        singly_s = timed_once(lambda: put_singly(source, target))
    with closing(connect(URL, root)) as source, closing(connect("sqlite:///bulk.db", root)) as target:
        target.create()
        bulk_s = timed_once(lambda: [target.put_rows(table, source.rows(table)) for table in TABLES])
    say(f"its registry: {bulk_s:.1f} s, a row at a time {singly_s:.1f} s: 1/{singly_s / bulk_s:.0f}")


def put_singly(source: Database, target: Database) -> None:
    for table in TABLES:
        for row in source.rows(table):
            target.put_rows(table, [row])


def timed_once(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    given = [int(count) for count in sys.argv[1:]]
    stacks, experiments, copied, rows, of_frame = given + [1_000, 50_000, 5_000, 1_000_000, 3_000_000][len(given) :]
    with tempfile.TemporaryDirectory() as folder:
        young = made(Path(folder) / "young", *YOUNG, rows=20 * YOUNG[1], running=1)
        old = made(Path(folder) / "old", stacks, experiments, rows=20 * experiments, running=1)
        say(f"{YOUNG[0]} stacks, {YOUNG[1]} experiments; {stacks:,} stacks, {experiments:,} experiments")
        compare_commands(young, old)
        compare_queries(old)
        watch(old)
        copy(made(Path(folder) / "moved", min(stacks, copied), copied, rows))
        frames(made(Path(folder) / "frame", 1, 1, of_frame))
