"""A command over a grid, as an agent runs it: a process for each point."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ems.databases import State
from ems.node.agent.agent import AgentConfig
from ems.provenance import bundle
from ems.stack.models import ExperimentSpec
from tests.node.bench import Bench, bench, family

__all__ = ["bench"]

PROGRAM = """
import csv, os, pathlib, sys
run_dir = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parents[2]
x, folder = int(sys.argv[1]), sys.argv[2]
with open(run_dir / "calls", "a") as calls:
    calls.write(f"{x}\\n")
if x % 10 == 3 and (run_dir / "trouble").exists():
    print("a line before", file=sys.stderr)
    raise ValueError(f"trouble at {x}")
if x != 5:
    with open(folder + "/rows.csv", "w") as file:
        file.write(f"y,label\\n{x / 7!r},a{x}")
"""


class Programs:
    """A command's sweep on a bench, not yet begun."""

    def __init__(
        self,
        bench: Bench,
        command: list[str] | None = None,
        code: Mapping[str, str] | str = PROGRAM,
        points: int = 20,
        sweep: Mapping[str, object] | None = None,
        workers: int = 1,
        env: Mapping[str, str] = {},
        results: Mapping[str, object] | str = {},
        **job: object,
    ) -> None:
        self.bench = bench
        described = {
            "command": command or ["python", "job.py", "{x}", "{results}"],
            "sweep": sweep or {"x": {"range": [0, points - 1, 1]}},
            **job,
        }
        fields = {"project": "p", "experimenter": "researcher", "funding": "f", "environment": "env", "env": env}
        place = {"cluster": {"kind": "laptop", "workers": workers}}
        said = {"results": results if isinstance(results, str) else {"table": "r", **results}}
        spec = ExperimentSpec.model_validate({**fields, **place, **said, "job": described})
        self.run_dir = bench.register(points=points, spec=spec)
        self.run_dir.mkdir(parents=True)
        files = {"job.py": code} if isinstance(code, str) else code
        self.package = _bundle(self.run_dir, files)
        AgentConfig("e1", bench.url, str(bench.root), str(self.package), sys.prefix, beat_s=0.1, grace_s=3.0).write(
            self.run_dir
        )

    def run(self) -> tuple[State, int, int]:
        row = self.bench.run(self.run_dir)
        return row.state, row.points_done, row.points_failed

    def errors(self) -> dict[int, str]:
        return {mark.point: mark.error for mark in self.bench.database.failures("e1")}

    def calls(self) -> list[int]:
        return [int(line) for line in (self.run_dir / "calls").read_text().split()]

    def log(self) -> str:
        return (self.run_dir / "agent.log").read_text() + (self.run_dir / "job.log").read_text()


def kill(programs: Programs, victim: str, agent: subprocess.Popen[bytes], program: int) -> None:
    """Kill the agent, the program of this number, or a process of the job whose command line has the word."""
    if victim == "agent":
        agent.kill()
    elif victim == "program":
        os.kill(program, signal.SIGKILL)
    else:
        found = [each for each in family(programs.run_dir) if victim in " ".join(each.cmdline())]
        for process in found[:1]:
            process.kill()
        assert found


def _bundle(folder: Path, files: Mapping[str, str]) -> Path:
    aside = folder / "aside.zip"
    with zipfile.ZipFile(aside, "w") as archive:
        for name, text in files.items():
            about = zipfile.ZipInfo(f"code/{name}")
            about.external_attr = 0o100755 << 16
            archive.writestr(about, text)
        archive.writestr("ems.zip", bundle._node_code())
    return aside.rename(folder / f"{hashlib.sha256(aside.read_bytes()).hexdigest()}.zip")


def test_each_point_is_a_process_whose_files_become_its_rows(bench: Bench) -> None:
    programs = Programs(bench, workers=2)
    assert programs.run() == (State.SUCCEEDED, 20, 0), programs.log()
    found = bench.values()
    expected = [x for x in range(20) if x != 5]
    assert (found["x"], found["y"]) == (expected, [x / 7 for x in expected])
    assert found["label"] == [f"a{x}" for x in expected]
    assert sorted(programs.calls()) == list(range(20))
    assert family(programs.run_dir) == []


def test_failures_have_their_last_lines_and_a_retry_computes_just_those(bench: Bench) -> None:
    programs = Programs(bench)
    (programs.run_dir / "trouble").touch()
    assert programs.run() == (State.FAILED, 18, 2)
    errors = programs.errors()
    assert list(errors) == [3, 13]
    first, *lines = errors[3].splitlines()
    assert first == "ValueError: trouble at 3 (exit code 1)"
    assert lines[:2] == ["", "a line before"] and "Traceback" in lines[2]
    assert "2 points failed: ValueError: trouble at 3 (exit code 1)" in bench.row().error
    (programs.run_dir / "trouble").unlink()
    bench.database.reopen("e1")
    assert programs.run() == (State.SUCCEEDED, 20, 0)
    assert sorted(programs.calls()) == sorted([*range(20), 3, 13])


def test_results_decide_the_points_of_a_program(bench):
    """A function in the experiment's environment proposes; `protocol: lines` and later workers know its points, too."""
    rounds = """
def propose(rows, round):
    assert sorted(row["x"] for row in rows.of_round(-1)) and round == max(rows.rounds) + 1
    return [{"x": max(row["x"] for row in rows) * 2}, {"x": 100 + round}] if round < 5 else None
"""
    code = {"job.py": PROGRAM, "study.py": rounds}
    sweep = Programs(bench, code=code, points=2, sweep={"x": [1, 2]}, propose="study:propose")
    assert sweep.run() == (State.SUCCEEDED, 8, 0), (sweep.run_dir / "job.log").read_text()
    assert bench.values()["x"] == [1, 2, 4, 102, 204, 103, 408, 104]
    assert bench.values()["label"] == [f"a{x}" for x in bench.values()["x"]]
    assert [each.points for each in bench.database.rounds("e1")] == [2, 2, 2, 0]


def test_without_rows_it_is_told_what_the_first_point_left_and_how_to_have_rows(bench: Bench) -> None:
    files = Programs(bench, ["sh", "-c", "echo {x} 0.5 > out.txt; echo x > plot.png"], points=3)
    assert files.run() == (State.SUCCEEDED, 3, 0), files.log()
    assert bench.row().log_tail.splitlines() == [
        "0 rows; not read of point-0: out.txt (6 bytes), plot.png (2 bytes)",
        "To have rows, say in the stack file where they are:",
        "    results:",
        "      table: r",
        "      files: [out.txt]",
        '      format: {type: csv, delimiter: " ", header: [c1, c2]}',
        "A job without rows says `results: none`.",
    ]


def test_rows_that_programs_only_print_are_told_too(bench: Bench) -> None:
    printing = Programs(bench, ["sh", "-c", "echo n,y; echo {x},0.5"], points=3)
    assert printing.run() == (State.SUCCEEDED, 3, 0), printing.log()
    first, *lines = bench.row().log_tail.splitlines()
    assert first == "0 rows; not read of point-0: stdout.txt (10 bytes)" and "      stdout: csv" in lines
    assert not any("files" in line for line in lines)


def test_columns_that_are_declared_and_never_come_are_told(bench: Bench) -> None:
    programs = Programs(bench, results={"columns": {"y": "float", "zip": "text"}})
    assert programs.run() == (State.SUCCEEDED, 20, 0), programs.log()
    assert bench.row().log_tail == "19 rows; no row has a value of zip, declared in `results: columns`"


def test_a_results_file_that_cannot_be_read_is_called_as_its_program_calls_it(bench: Bench) -> None:
    results = {"files": ["out.txt"], "format": {"type": "csv", "header": ["k"]}}
    programs = Programs(bench, ["sh", "-c", "echo 1,2 > out.txt"], points=1, results=results)
    assert programs.run() == (State.FAILED, 0, 1), programs.log()
    assert programs.errors()[0].startswith("out.txt:1: 2 fields, where")


def test_a_run_that_stops_ends_the_programs_at_work_and_says_why(bench: Bench) -> None:
    programs = Programs(bench, ["sh", "-c", "test {x} -gt 0 && sleep 1000"], workers=2, max_failures=0)
    assert programs.run() == (State.FAILED, 0, 1), programs.log()
    assert bench.row().error.endswith("It was stopped, as more than max_failures failed.")
    assert "Traceback" not in programs.log() and family(programs.run_dir) == []
