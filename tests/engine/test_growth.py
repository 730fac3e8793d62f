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
opened, scanned = collections.Counter(), collections.Counter()

def hear(event, arguments):
    if event in {"open", "os.scandir", "os.listdir"} and str(arguments[0]).startswith(root):
        (opened if event == "open" else scanned)[str(arguments[0])[len(root):]] += 1

sys.addaudithook(hear)
try:
    runpy.run_module("ems.cli", run_name="__main__")
finally:
    with open(report, "w") as file:
        json.dump([opened, scanned], file)
"""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Lab]:
    folder = tmp_path_factory.mktemp("labs")
    return {size: check.make(folder / str(size), size) for size in (12, 100)}


def asked(lab: Lab, folder: Path) -> tuple[Counter[str], dict[str, int], dict[str, int]]:
    """The git commands that a check of all stacks starts, how often it opens each file, and reads each folder."""
    trace, report = folder / f"trace-{lab.root.name}", folder / f"report-{lab.root.name}"
    trace.mkdir()
    words = [sys.executable, "-c", COUNTED, f"{lab.root}/", str(report), "check"]
    subprocess.run(words, cwd=lab.root, check=True, env=check.traced(trace), stdout=subprocess.DEVNULL)
    opened, scanned = json.loads(report.read_text())
    return check.git_commands(trace), opened, scanned


def test_a_check_of_many_stacks_asks_as_often_as_one_of_few(labs, tmp_path):
    (few, few_opened, few_scanned), (many, many_opened, many_scanned) = (asked(labs[size], tmp_path) for size in labs)
    assert few == many and max(many.values()) <= 2 and many.total() <= 12
    assert max(few_opened.values()) == max(many_opened.values()) <= 3
    assert max(few_scanned.values()) == max(many_scanned.values()) <= 4
