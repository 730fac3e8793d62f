"""What EMS adds to one `pulumi up`: of a finished experiment, and of one with a trivial job, over an empty program.

The same engine, backend and machine for all; wall clock, the median of the rounds. A minute:
python benchmarks/overhead.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import git

from ems import lab as laboratory
from ems.cli import scaffold
from ems.engine import install
from ems.engine.runner import Pulumi
from ems.lab import Lab

Case = Callable[[int], object]  # is given the number of the round

UP = ("up", "--yes", "--skip-preview", "--stack")
EMPTY = "an empty program"
PROJECT = """name: empty
runtime: python
config:
  ems:lab_id:
    value: 00000000-0000-4000-8000-000000000000
"""


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cases = {EMPTY: empty_program(Path(folder, "empty")), **experiments(Path(folder, "lab"), rounds)}
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds):
            for name, case in cases.items():
                seconds[name].append(timed(case, number))
    show({name: statistics.median(values) for name, values in seconds.items()}, rounds)


def empty_program(root: Path) -> Case:
    root.mkdir()
    (root / "Pulumi.yaml").write_text(PROJECT)
    (root / "__main__.py").touch()
    pulumi = Pulumi(laboratory.read(root), install.ensure())  # the empty one has no plugin of EMS
    pulumi.quietly("stack", "init", "empty")
    return lambda _number: pulumi.quietly(*UP, "empty")


def experiments(root: Path, rounds: int) -> dict[str, Case]:
    lab = scaffold.init(root, "overhead")
    pulumi = Pulumi.of(lab)
    add_trivial_jobs(lab, rounds)
    for stack in lab.stacks():
        pulumi.quietly("stack", "init", stack)
    for stack in ("lab", "pi", "pi"):  # the second time lets the cluster go
        pulumi.quietly(*UP, stack)
    return {
        "a finished experiment": lambda _number: pulumi.quietly(*UP, "pi"),
        "a new one: registered, run, stored": lambda number: pulumi.quietly(*UP, f"job{number}"),
    }


def add_trivial_jobs(lab: Lab, rounds: int) -> None:
    """One experiment a round, as one that is finished would not run again; each stores two rows."""
    for number in range(rounds):
        scaffold.new(lab, f"job{number}")
        path = lab.stack_file(f"job{number}")
        path.write_text(path.read_text().replace("points: 200000", "points: 20000"))
    repository = git.Repo(lab.root)
    repository.git.add(all=True)
    author = git.Actor("EMS", "ems@localhost")
    repository.index.commit("Trivial jobs", author=author, committer=author)


def timed(case: Case, number: int) -> float:
    began = time.perf_counter()
    case(number)
    return time.perf_counter() - began


def show(medians: dict[str, float], rounds: int) -> None:
    print(f"`pulumi up` on {os.cpu_count()} cores, median of {rounds}:")
    for name, median in medians.items():
        added = "" if name == EMPTY else f"   + {median - medians[EMPTY]:.1f} s, {median / medians[EMPTY]:.1f} times"
        print(f"  {name:36}{median:6.1f} s{added}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
