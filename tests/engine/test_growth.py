"""What `ems check` and `ems up` ask of git and of the file system does not grow with the number of stacks.

Each stack's own files are opened; all else is asked once for all stacks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import check
from ems.lab import Lab

COUNTED = """
import collections, json, runpy, sys
root, report, *sys.argv[1:] = sys.argv[1:]
opened, scanned, started = collections.Counter(), collections.Counter(), []

def hear(event, arguments):
    if event in {"open", "os.scandir", "os.listdir"} and str(arguments[0]).startswith(root):
        (opened if event == "open" else scanned)[str(arguments[0])[len(root):]] += 1
    if event == "sqlite3.connect":
        opened["database"] += 1
    if event == "subprocess.Popen":
        started.append(str(arguments[1][0]))

sys.addaudithook(hear)
try:
    runpy.run_module("ems.cli", run_name="__main__")
finally:
    with open(report, "w") as file:
        json.dump([opened, scanned, started], file)
"""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Lab]:
    folder = tmp_path_factory.mktemp("labs")
    made = {size: check.make(folder / str(size), size) for size in (12, 100)}
    for lab in made.values():
        with lab.database() as database:
            database.create()
    return made


def asked(root: Path, folder: Path, *words: str) -> tuple[Counter[str], dict[str, int], dict[str, int], list[str]]:
    """The git commands that `ems` starts, how often it opens each file and reads each folder, and all it starts."""
    folder.mkdir()
    report = folder / "report"
    command = [sys.executable, "-c", COUNTED, f"{root}/", str(report), *words]
    subprocess.run(command, cwd=root, check=True, env=check.traced(folder), stdout=subprocess.DEVNULL)
    opened, scanned, started = json.loads(report.read_text())
    report.unlink()
    return check.git_commands(folder), opened, scanned, started


def test_a_check_of_many_stacks_asks_as_often_as_one_of_few(labs, tmp_path):
    (few, few_opened, few_scanned, _), (many, many_opened, many_scanned, _) = (
        asked(lab.root, tmp_path / str(size), "check") for size, lab in labs.items()
    )
    assert few == many and max(many.values()) <= 2 and many.total() <= 12
    assert max(few_opened.values()) == max(many_opened.values()) <= 3
    assert 0 < many_opened["database"] <= 2
    assert max(few_scanned.values()) == max(many_scanned.values()) <= 4
