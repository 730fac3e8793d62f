"""What a point of a command's sweep costs beside its program, and how many points a second one answers that stays.

python benchmarks/command_sweep.py [POINTS]

Two workers; what they spool is stored in SQLite as the agent does. `true`: the smallest program; its own start is that
of a bare loop that runs it in two processes. `tree`: the same in a folder of 2,000 files. `lines`: a program in Python
and one in C that answer each point with a row.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import ems
from benchmarks.sqlite_rows import claimed
from ems.databases import connect
from ems.spool import folder as spool
from ems.spool.folder import Spool

WORKERS = 2
PYTHON = """
import json, sys
for line in sys.stdin:
    point = json.loads(line)
    print(json.dumps({"point": point["point"], "y": point["n"] / 7}), flush=True)
"""
SAMPLE = Path(ems.__file__).parents[1] / "experiments/lines/model.c"
LOOP = "import subprocess, sys\nfor _ in range(int(sys.argv[1])): subprocess.run(['true'])"


@dataclass(frozen=True)
class Measured:
    first_s: float  # from the start to the first stored batch
    all_s: float  # to the end of the driver
    points: int

    @property
    def rate(self) -> float:
        return self.points / (self.all_s - self.first_s)


def swept(folder: Path, command: list[str], grid: dict[str, object], points: int, protocol: str) -> Measured:
    """The driver, and beside it a loop that stores what it spools, as the agent does."""
    (folder / "done").write_bytes(b"")
    (folder / "checkpoints").mkdir()
    names = ("code", "spool", "done", "folder", "left", "checkpoints")
    order = {
        **{name: str(folder / name) for name in names},
        **{
            "progress": str(folder / "progress.json"),
            "function": "",
            "python": sys.executable,
            "source": "",
            "grids": [grid],
            "workers": WORKERS,
            "threads": 1,
        },
        **{"command": command, "env": {}, "variables": dict(os.environ), "parameters": {}, "protocol": protocol},
    }
    (folder / "order.json").write_text(json.dumps(order))
    call = f"from ems.node.programs.driver import main; main({str(folder / 'order.json')!r})"
    waiting = Spool(folder / "spool")
    variables = {**os.environ, "PYTHONPATH": str(Path(ems.__file__).parents[1])}
    with closing(connect("sqlite:///ems.db", folder)) as database:
        claim = claimed(database)
        began, first_s = time.perf_counter(), 0.0
        driver = subprocess.Popen([sys.executable, "-c", call], env=variables)
        while driver.poll() is None or waiting.waiting():
            for path in waiting.waiting():
                database.store(claim, spool.read(path))
                path.unlink()
                first_s = first_s or time.perf_counter() - began
            time.sleep(0.01)
    if driver.returncode:
        raise SystemExit(driver.returncode)
    return Measured(first_s, time.perf_counter() - began, points)


def own_start_s(points: int) -> float:
    """Seconds of a point whose program a bare loop runs, in as many processes as there are workers."""
    began = time.perf_counter()
    loops = [subprocess.Popen([sys.executable, "-c", LOOP, str(points // WORKERS)]) for _ in range(WORKERS)]
    for loop in loops:
        loop.wait()
    return WORKERS * (time.perf_counter() - began) / points


def started(points: int, files: int) -> float:
    """Seconds of a worker for each point whose program is `true`."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "code"
        for number in range(files):
            file = code / f"part-{number % 50}" / f"file-{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x = 1\n")
        measured = swept(Path(folder), ["true"], {"n": {"range": [0, points - 1, 1]}}, points, "process")
    return WORKERS * (measured.all_s - measured.first_s) / points


def answered(points: int, command: list[str], grid: dict[str, object]) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "code"
        code.mkdir()
        (code / "model.py").write_text(PYTHON)
        subprocess.run(["cc", "-O2", "-o", code / "model", SAMPLE, "-lm"], check=True)
        return swept(Path(folder), command, grid, points, "lines")


def main(points: int) -> None:
    own_s = own_start_s(points // 10)
    sys.stdout.write(f"true, in a bare loop: {1000 * own_s:.1f} ms\n")
    for name, files in (("true", 1), ("tree", 2000)):
        each_s = started(points // 10, files)
        sys.stdout.write(f"{name}: {1000 * each_s:.1f} ms a point, {1000 * (each_s - own_s):.1f} ms above its start\n")
    grids: dict[str, dict[str, object]] = {
        "python": {"n": {"range": [0, points - 1, 1]}},
        "c": {"rate": {"linspace": [0, 1, points // 10]}, "size": {"range": [0, 9, 1]}},
    }
    for name, command in (("python", [sys.executable, "model.py"]), ("c", ["./model"])):
        measured = answered(points, command, grids[name])
        sys.stdout.write(f"lines, {name}: {measured.rate:,.0f} points/s after {measured.first_s:.1f} s\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
