"""A sweep on a real Slurm of this machine against the same on the laptop, and what EMS asks of Slurm and of files.

As root on Linux, with Slurm, munge, slurmdbd and MariaDB (`make test` installs them); five minutes:

    PYTHONPATH=. python benchmarks/slurm.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clusters.slurm_server import SlurmServer, started
from tests.databases.servers import PostgresqlServer
from tests.end_to_end.slurm_user import SlurmUser, at_work

POINTS, WORKERS, ROUNDS = 2000, 2, 3
WATCHED_S = 240
COMMANDS = ("squeue", "sbatch", "scancel", "sacct", "scontrol", "sinfo", "sacctmgr")
CODE = """
import time
def f(n):
    time.sleep(0.002)
    return {"at": time.time()}
"""
WAITING = "import os, time; time.sleep(SECONDS); print('n'); print(1)"
RATE = "SELECT (count(*) - 1) / (max(at) - min(at)), min(at) FROM {table}"


def main() -> None:
    root, server = Path(tempfile.mkdtemp(prefix="ems-benchmark-")), PostgresqlServer.make()
    try:
        with started() as slurm, room(root) as work, counted(root) as calls:
            os.environ.update(slurm.variables)
            with at_work(root / "lab", slurm, server) as user:
                user.place(partition=["normal"], account="grant", work_dir=str(work), workers=WORKERS,
                           processes_per_job=WORKERS, head={"computes": False})  # fmt: skip
                user.write("experiments/e/sweep.py", CODE)
                user.ems("up", "lab", "sherlock")
                sweeps(user, slurm, work)
                watching(user, calls)
    finally:
        server.end()


def sweeps(user: SlurmUser, slurm: SlurmServer, work: Path) -> None:
    """By turns on the laptop and on Slurm, as other load on this machine changes."""
    rates: dict[str, list[float]] = {"laptop": [], "slurm": []}
    for number in range(ROUNDS):
        for place, found in rates.items():
            table = f"{place}_{number}"
            cluster = {"kind": "laptop", "workers": WORKERS} if place == "laptop" else {"stack": "sherlock"}
            job = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, POINTS, 1]}, "round": [number]}}
            user.describe(table, job, cluster=cluster, results={"table": table})
            user.write("experiments/e/sweep.py", CODE.replace("f(n)", "f(n, round)") + f"# {table}\n")
            user.commit("A sweep")
            before = created(work)
            user.ems("up", table)
            ((rate, first),) = user.asked(RATE.format(table=table))
            found.append(rate)
            say(f"{place}: {rate:,.0f} points/s")
            if place == "slurm":
                say(f"  first row computed {first - started_at(slurm):.1f} s after the head's start")
                say(f"  {(created(work) - before - 1) * 1000 / POINTS:,.0f} files and folders created per 1,000 points")
    say(f"slurm : laptop = {max(rates['slurm']) / max(rates['laptop']):.2f} of the best of {ROUNDS} rounds")


def watching(user: SlurmUser, calls: Path) -> None:
    """A command that does nothing for some minutes, while `ems up` watches it."""
    job = {"command": ["python", "-c", WAITING.replace("SECONDS", str(WATCHED_S))]}
    user.describe("c", job, results={"table": "c", "stdout": "csv"})
    user.commit("A command")
    calls.write_text("")
    began = time.monotonic()
    user.ems("up", "c")
    minutes = (time.monotonic() - began) / 60
    names = calls.read_text().split()
    by_name = ", ".join(f"{names.count(name)} {name}" for name in COMMANDS if name in names)
    say(f"{len(names) / minutes:.1f} commands of Slurm a minute over {minutes:.1f} minutes: {by_name}")


def started_at(slurm: SlurmServer) -> float:
    """Of the newest head, by accounting."""
    lines = slurm.run("sacct", "-n", "-P", "-X", "-S", "now-1hours", "-o", "JobName%60,Start").splitlines()
    heads = [line.split("|") for line in lines if line.startswith("ems-") and "-workers" not in line]
    return time.mktime(time.strptime(max(start for _, start in heads if start != "Unknown"), "%Y-%m-%dT%H:%M:%S"))


@contextmanager
def room(root: Path) -> Iterator[Path]:
    """A file system of its own, which numbers what is created on it."""
    folder = root / "work"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "ems", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def created(folder: Path) -> int:
    """How many files there were ever on a tmpfs."""
    file = folder / "counter"
    file.touch()
    number = file.stat().st_ino
    file.unlink()
    return number


@contextmanager
def counted(root: Path) -> Iterator[Path]:
    """Have Slurm's commands note that they were called, in the file, also in jobs."""
    folder, calls = root / "bin", root / "calls"
    folder.mkdir()
    for name in COMMANDS:
        (folder / name).write_text(f'#!/bin/sh\necho {name} >> {calls}\nexec /usr/bin/{name} "$@"\n')
        (folder / name).chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{before}"
    try:
        yield calls
    finally:
        os.environ["PATH"] = before


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
