"""What EMS costs around a job: `ems up` of an experiment, new or done, alone or of many, over an empty `pulumi up`.

The same engine, backend and machine for all; wall clock, the median of the rounds, environments built before. Two
minutes: python benchmarks/overhead.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import git

from ems import lab as laboratory
from ems.cli import scaffold
from ems.engine.runner import Pulumi
from ems.lab import Lab

Case = Callable[[int], object]  # is given the number of the round

UP = ("up", "--yes", "--skip-preview", "--stack")
EMPTY = "an empty `pulumi up`"
MANY = 20
PROJECT = """name: empty
runtime: python
config:
  ems:lab_id:
    value: 00000000-0000-4000-8000-000000000000
"""


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cases = {EMPTY: empty_program(root / "empty"), **experiments(root / "lab", rounds), **new_labs(root)}
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds):
            for name, case in cases.items():
                seconds[name].append(timed(case, number))
    show({name: statistics.median(values) for name, values in seconds.items()}, rounds)


def empty_program(root: Path) -> Case:
    root.mkdir()
    (root / "Pulumi.yaml").write_text(PROJECT)
    (root / "__main__.py").touch()
    pulumi = Pulumi(laboratory.read(root))  # the empty one has no plugin of EMS
    pulumi.quietly("stack", "init", "empty")
    return lambda _number: pulumi.quietly(*UP, "empty")


def experiments(root: Path, rounds: int) -> dict[str, Case]:
    lab = scaffold.init(root, "overhead")
    pulumi = Pulumi.of(lab)
    counts = {"plain": rounds, "told": rounds, "many": MANY, "same": rounds}
    plain, told, many, same = ([f"{kind}{n}" for n in range(count)] for kind, count in counts.items())
    add_trivial_jobs(lab, [*plain, *told, *many, *same])
    for stack in plain:
        pulumi.quietly("stack", "init", stack)
    ems(root, "up", "lab", "pi", *many)
    return {
        "plain `pulumi up` of a finished experiment": lambda _number: pulumi.quietly(*UP, "pi"),
        "plain `pulumi up` of a new one": lambda number: pulumi.quietly(*UP, plain[number]),
        "`ems up` of a new one, to its release": lambda number: ems(root, "up", told[number]),
        "`ems up` with nothing to do": lambda _number: ems(root, "up", "pi"),
        f"`ems up` of {MANY} with nothing to do": lambda _number: ems(root, "up", *many),
        f"{MANY} × `ems up` of the same new one at once": lambda number: at_once(root, same[number]),
    }


def new_labs(root: Path) -> dict[str, Case]:
    def made(number: int) -> None:
        ems(root, "init", f"new{number}")
        ems(root / f"new{number}", "up")

    return {"`ems init`, and `ems up` of the new lab": made}


def ems(cwd: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "ems.cli", *words], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def at_once(root: Path, stack: str) -> None:
    command = [sys.executable, "-m", "ems.cli", "up", stack]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL) for _ in range(MANY)]
    assert [process.wait() for process in running] == [0] * MANY


def add_trivial_jobs(lab: Lab, stacks: list[str]) -> None:
    """Experiments that differ, so that none is computed already; each stores a few rows."""
    for number, stack in enumerate(stacks):
        scaffold.new(lab, stack)
        path = lab.stack_file(stack)
        text = path.read_text().replace("points: 200000", "points: 20000")
        path.write_text(text.replace("seed: 1", f"seed: {number}"))
    repository = git.Repo(lab.root)
    repository.git.add(all=True)
    author = git.Actor("EMS", "ems@localhost")
    repository.index.commit("Trivial jobs", author=author, committer=author)


def timed(case: Case, number: int) -> float:
    began = time.perf_counter()
    case(number)
    return time.perf_counter() - began


def show(medians: dict[str, float], rounds: int) -> None:
    print(f"On {os.cpu_count()} cores, median of {rounds}:")
    for name, median in medians.items():
        print(f"  {name:50}{median:6.1f} s{median / medians[EMPTY]:8.1f} ×")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
