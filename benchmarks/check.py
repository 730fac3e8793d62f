"""Seconds and git processes of `ems check` in labs of 20, 200 and 1,000 stacks, all committed.

PYTHONPATH=. python benchmarks/check.py [STACKS …]

The stacks are programs and sweeps, with code of their own or all of it, in several environments; every tenth
commit came by a merged branch. git's processes are counted by its own trace, in a second run.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ems.cli import scaffold
from ems.lab import Lab

SIZES = (20, 200, 1_000)
STACKS_PER_COMMIT = 5
STACKS_PER_MERGE = 50
STACKS_PER_ENVIRONMENT = 10
PERSON = ("-c", "user.name=EMS", "-c", "user.email=ems@localhost", "-c", "gc.auto=0")
LOCK = "".join(
    f"{name}==2025.1.{n} ; python_version >= '3.9' --hash=sha256:{n:064x}\n"
    for n, name in enumerate(["dask", "distributed", *(f"package-{k}" for k in range(40))])
)
MODEL = "def converge(size: int, seed: int, rate: float = 0.1) -> dict:\n    return {'error': size * rate + seed}\n"
PROGRAM = "command: [python, experiments/{name}/main.py]\n      parameters: {{sizes: [10, 100], rate: {rate}}}"
SWEEP = "function: experiments.models:converge\n      sweep: {{size: [10, 100], seed: [1, {number}]}}"
STACK = """config:
  ems:experiment:
    title: Number {number}
    project: first
    experimenter: me
    funding: unfunded
    {code}
    environment: {environment}
    job:
      {job}
    results: {{table: table{number}}}
    cluster: {{kind: laptop}}
    limits: {{max_hours: 1}}
"""


def main(sizes: list[int]) -> None:
    table = Table("stacks", "seconds", "git processes")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            lab = make(Path(folder, "lab"), size)
            seconds = statistics.median(timed(lab) for _ in range(3 if size < SIZES[-1] else 1))
            table.add_row(f"{size:,}", f"{seconds:.1f}", f"{git_processes(lab, Path(folder, 'trace')):,}")
    Console().print(table)


def make(root: Path, size: int) -> Lab:
    """A lab with `size` stacks beside that of the lab itself."""
    lab = scaffold.init(root, "many")
    for number in range(1, size):
        write_stack(lab, number)
        if number % STACKS_PER_COMMIT == 0 or number == size - 1:
            commit(lab.root, number, by_a_branch=number % STACKS_PER_MERGE == 0)
    return lab


def commit(root: Path, number: int, *, by_a_branch: bool) -> None:
    if by_a_branch:
        git(root, "checkout", "--quiet", "-b", f"branch{number}")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", f"Stacks up to {number}")
    if by_a_branch:
        git(root, "checkout", "--quiet", "main")
        git(root, "merge", "--quiet", "--no-ff", "--no-edit", f"branch{number}")


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *PERSON, *words], cwd=root, check=True, stdout=subprocess.DEVNULL)


def write_stack(lab: Lab, number: int) -> None:
    """Every third one is a sweep, of code that all have; every ninth declares no paths."""
    is_sweep, name = number % 3 == 0, f"stack{number}"
    environment = f"shared{number // STACKS_PER_ENVIRONMENT}"
    own = f"experiments/{name}"
    code = "code: {}" if number % 9 == 0 else f"code: {{paths: [{'experiments/models.py' if is_sweep else own}]}}"
    job = (SWEEP if is_sweep else PROGRAM).format(name=name, number=number, rate=0.5 if number % 2 else 2.0)
    values = {"number": number, "code": code, "environment": environment, "job": job}
    files = {
        lab.stack_file(name): STACK.format(**values),
        lab.root / "experiments/models.py": MODEL,
        lab.root / f"environments/{environment}/python-version": "3.11\n",
        lab.root / f"environments/{environment}/requirements.in": "dask[distributed]\n",
        lab.root / f"environments/{environment}/requirements.txt": f"# {environment}\n{LOCK}",
    }
    files |= {} if is_sweep else {lab.root / own / "main.py": f"print({number})\n"}
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def timed(lab: Lab) -> float:
    began = time.perf_counter()
    check(lab, os.environ)
    return time.perf_counter() - began


def git_processes(lab: Lab, trace: Path) -> int:
    trace.mkdir()
    check(lab, traced(trace))
    return git_commands(trace).total()


def traced(trace: Path) -> dict[str, str]:
    """The environment in which each process of git leaves a file in `trace`."""
    return {**os.environ, "GIT_TRACE2_EVENT": str(trace)}


def git_commands(trace: Path) -> Counter[str]:
    """How often each of git's commands was started."""
    events = [json.loads(line) for file in trace.iterdir() for line in file.read_text().splitlines()]
    words = [event["argv"] for event in events if event["event"] == "start"]
    return Counter(next(word for word in each[1:] if not word.startswith("-")) for each in words)


def check(lab: Lab, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "ems.cli", "check"]
    subprocess.run(command, cwd=lab.root, env=environment, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or list(SIZES))
