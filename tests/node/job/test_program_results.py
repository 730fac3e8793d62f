"""Agents that run real programs, which write results in their own ways and leave files."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ems.databases import Experiment, State
from ems.stack.models import ExperimentSpec
from tests.node.bench import Bench, bench
from tests.processes import PATIENCE_S, eventually

__all__ = ["bench"]


def spec(command: list[str], results: Mapping[str, Any] | str) -> ExperimentSpec:
    fields = {"project": "p", "experimenter": "researcher", "funding": "f", "environment": "env"}
    said = results if isinstance(results, str) else {"table": "r", **results}
    return ExperimentSpec.model_validate({**fields, "job": {"command": command}, "results": said})


def prepared(bench: Bench, command: list[str], **results: Any) -> Path:
    return bench.prepare(bench.register(spec=spec(command, results)), "")


def ran(bench: Bench, command: list[str], **results: Any) -> Experiment:
    return bench.run(prepared(bench, command, **results))


def names(row: Experiment) -> list[str]:
    return [file["name"] for file in json.loads(row.files_left or "[]")]


def test_a_shell_script_prints_its_rows(bench: Bench) -> None:
    script = "echo n,x; echo to the log >&2; for n in 1 2 3; do echo $n,0.5; done; printf 4,1"
    row = ran(bench, ["sh", "-c", script], stdout="csv")
    assert (row.state, row.rows_stored, row.files_left) == (State.SUCCEEDED, 4, "")
    assert bench.values() == {"n": [1, 2, 3, 4], "x": [0.5, 0.5, 0.5, 1.0]}
    assert (bench.root / "runs/e1/job.log").read_text() == "--- attempt 1 ---\nto the log\n"


def test_printed_rows_are_stored_while_the_program_runs(bench: Bench) -> None:
    script = """echo '{"n": 1}'; while [ ! -e ../../go ]; do sleep 0.05; done; echo '{"n": 2}'"""
    run_dir = prepared(bench, ["sh", "-c", script], stdout="jsonl")
    agent = bench.start(run_dir)
    eventually(lambda: bench.values() == {"n": [1]})
    (run_dir / "go").touch()
    assert agent.wait(PATIENCE_S) == 0
    assert bench.values() == {"n": [1, 2]}


def test_a_file_of_the_scripts_own_name_becomes_rows_and_a_plot_is_left(bench: Bench) -> None:
    script = "for k in 1 2; do echo $k $k.5 >> final_results.txt; done; mkdir out; echo x > out/plot.png"
    form = {"type": "csv", "delimiter": " ", "header": ["k", "y"]}
    row = ran(bench, ["sh", "-c", script], files=["final_results.txt"], format=form)
    assert bench.values() == {"k": [1, 2], "y": [1.5, 2.5]}
    assert names(row) == ["out/plot.png"] and row.log_tail == "2 rows; not read: out/plot.png (2 bytes)"
    assert (bench.root / "runs/e1/left/attempt-1/out/plot.png").exists()


def test_r_and_octave_and_numpy_write_rows(bench: Bench) -> None:
    programs = {
        "r": ["Rscript", "-e", "saveRDS(data.frame(n = 1:2, s = c('a', NA)), 'fit.rds')"],
        "o": ["octave-cli", "--quiet", "--eval", "M = [1 0.5]; save -ascii M.txt M"],
        "n": ["python", "-c", "import numpy; numpy.savez('a.npz', n=[1, 2], s=['a', 'b'])"],
    }
    said = {
        "r": {"files": ["*.rds"]},
        "o": {"files": ["M.txt"], "format": {"type": "csv", "delimiter": " ", "header": ["n", "x"]}},
        "n": {"files": ["a.npz"]},
    }
    for id, command in programs.items():
        run_dir = bench.prepare(bench.register(id, spec=spec(command, said[id])), "", id=id)
        assert bench.run(run_dir, id).state is State.SUCCEEDED, bench.row(id).error
    assert [bench.values(id)["n"] for id in programs] == [[1, 2], [1], [1, 2]]
    assert bench.values("r")["s"] == ["a", None]


def test_a_table_written_anew_each_time_is_stored_as_it_was_at_the_end(bench: Bench) -> None:
    code = (
        "import numpy, pathlib, time\n"
        "for step in (3, 2, 5):\n"
        "    numpy.savetxt('x.csv', numpy.arange(step) + 100.0 / step, header='x', comments='')\n"
        "    while step == 3 and not pathlib.Path('../../seen').exists(): time.sleep(0.02)\n"
        "    time.sleep(0.5)\n"
    )
    run_dir = bench.prepare(bench.register(spec=spec(["python", "job.py"], {"files": ["x.csv"]})), code)
    agent = bench.start(run_dir)
    eventually(lambda: len(bench.values().get("x", [])) == 3)
    (run_dir / "seen").touch()
    assert agent.wait(PATIENCE_S) == 0
    assert bench.values() == {"x": [20.0, 21.0, 22.0, 23.0, 24.0]}
    assert (bench.row().state, bench.row().rows_stored) == (State.SUCCEEDED, 5)


def test_a_program_that_fails_keeps_all_that_it_wrote(bench: Bench) -> None:
    script = "printf 'n\\n1\\n2' > a.csv; echo x > plot.png; exit 3"
    run_dir = prepared(bench, ["sh", "-c", script], files=["a.csv"])
    row = bench.run(run_dir)
    assert (row.state, bench.values()) == (State.FAILED, {"n": [1]})
    assert names(row) == ["a.csv", "plot.png"]
    bench.database.reopen("e1")
    again = bench.run(run_dir)
    assert [(file["name"], file["attempt"]) for file in json.loads(again.files_left)] == [
        ("a.csv", 1), ("plot.png", 1), ("a.csv", 2), ("plot.png", 2)]  # fmt: skip


def test_what_cannot_be_read_is_kept_and_the_error_has_the_fix(bench: Bench) -> None:
    code = "for k in range(3): print((k, k / 2), file=open('final_results.txt', 'a'))"
    row = ran(bench, ["python", "-c", code], files=["final_results.txt"], format={"type": "csv"})
    assert row.state is State.FAILED and "final_results.txt:1: a tuple of Python" in row.error
    assert "print(*row" in row.error and names(row) == ["final_results.txt"]


def test_what_a_killed_agents_job_left_is_kept_too(bench: Bench) -> None:
    script = "echo $$ > plot-$$.png; touch ../../half; while [ ! -e ../../go ]; do sleep 0.05; done"
    run_dir = prepared(bench, ["sh", "-c", script])
    agent = bench.start(run_dir)
    eventually((run_dir / "half").exists)
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    (run_dir / "go").touch()
    row = bench.run(run_dir)
    found = json.loads(row.files_left)
    assert [file["attempt"] for file in found] == [1, 2] and len({file["name"] for file in found}) == 2


def test_a_job_without_rows_says_so_and_has_no_table(bench: Bench) -> None:
    run_dir = bench.prepare(bench.register(spec=spec(["sh", "-c", "echo x > $EMS_RESULTS_DIR/a.csv"], "none")), "")
    row = bench.run(run_dir)
    assert (row.state, row.log_tail) == (State.SUCCEEDED, "0 rows; not read: EMS_RESULTS_DIR/a.csv (2 bytes)")


def test_a_pattern_that_matches_nothing_is_told(bench: Bench) -> None:
    row = ran(bench, ["sh", "-c", "mkdir output; echo n > output/a.csv"], files=["out/*.csv"])
    assert row.state is State.SUCCEEDED
    first, *lines = row.log_tail.splitlines()
    assert first == '0 rows; nothing matches "out/*.csv" of `results: files`; not read: output/a.csv (2 bytes)'
    assert "      files: [output/a.csv]" in lines


def test_rows_that_were_only_printed_are_told_with_how_to_declare_them(bench: Bench) -> None:
    row = ran(bench, ["sh", "-c", "echo n,x; for n in 1 2 3; do echo $n,0.5; done"])
    assert (row.state, row.rows_stored) == (State.SUCCEEDED, 0)
    assert row.log_tail.splitlines()[1:5] == [
        "To have rows, say in the stack file where they are:", "    results:", "      table: r", "      stdout: csv"
    ]  # fmt: skip


def test_declared_columns_that_never_come_are_told(bench: Bench) -> None:
    script = "echo n,x,e; echo 1,0.5,"
    row = ran(bench, ["sh", "-c", script], stdout="csv", columns={"zip": "text", "x": "float", "e": "text"})
    assert row.state is State.SUCCEEDED
    assert row.log_tail == "1 row; no row has a value of zip, e, declared in `results: columns`"


def test_a_file_that_cannot_be_read_is_called_as_its_program_calls_it(bench: Bench) -> None:
    script = "mkdir out; echo 1 2 3 > out/final.txt"
    form = {"type": "csv", "delimiter": " ", "header": ["k", "y"]}
    row = ran(bench, ["sh", "-c", script], files=["out/*.txt"], format=form)
    assert row.error.startswith("out/final.txt:1: 3 fields, where `results: {format: {header: …}}` has 2.")
