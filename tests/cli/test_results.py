"""What experiments left: `ems results` and `ems logs`."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from contextlib import closing

import pytest

from ems import databases
from ems.databases import Experiment, Outcome, State
from ems.lab import Lab
from ems.node.job.log import BoundedLog
from tests.cli.running import PROGRAM, run
from tests.conftest import ran, registered
from tests.databases.cases import batch, floats, ints, texts


def test_results_of_an_experiment_without_rows(here: Lab) -> None:
    registered(here)
    assert "no rows yet" in run("results", "pi").stdout
    done = run("results", "pi", "--format", "csv")
    assert done.stdout == "" and "0 rows" in done.stderr
    for option in (["--format", "json"], ["--json"], ["--json", "--format", "json"]):
        assert json.loads(run("results", "pi", *option).stdout) == []
    assert "two answers" in run("results", "pi", "--json", "--format", "csv", expect=2).stderr


def test_results_on_standard_output(here: Lab) -> None:
    ran(here, batch([0, 0], texts("[red]name", "é", "[bold]"), floats("x", 0.1, None), rows=[0, 1]))
    assert run("results", "pi", "--format", "csv").stdout == 'point,row,"[red]name",x\n0,0,"é",0.1\n0,1,"[bold]",\n'
    assert run("results", "pi", "--format", "csv", "--columns", "x").stdout == "point,row,x\n0,0,0.1\n0,1,\n"
    for format in ("csv", "json"):
        done = run("results", "pi", "--columns", "x,y", "--format", format, expect=2)
        assert "no column 'y'" in done.stderr and done.stdout == ""
    rows = json.loads(run("results", "pi", "--format", "json").stdout)
    assert rows[1] == {"point": 0, "row": 1, "[red]name": "[bold]", "x": None}
    assert all(part in run("results", "pi").stdout for part in ("[red]name", "[bold]", "é", "0.1"))


def test_results_of_some_rows(here: Lab) -> None:
    ran(here, batch([0, 1, 2], ints("m", 60, 120, 60), floats("x", 0.5, 1.5, 2.5)))
    csv = ["results", "pi", "--format", "csv"]
    assert run(*csv, "--where", "x >= 1").stdout == "point,row,m,x\n1,0,120,1.5\n2,0,60,2.5\n"
    assert run(*csv, "--where", "x >= 1", "--where", "m=60", "--columns", "x").stdout == "point,row,x\n2,0,2.5\n"
    some = run("results", "pi", "--where", "m=60", "--where", "x<1.").stdout
    assert "pi: 1 row with m=60 and x<1., 4 columns in pi" in some
    assert "pi: no rows with x is null" in run("results", "pi", "--where", "x is null").stdout
    assert "COLUMN OPERATOR VALUE" in run("results", "pi", "--where", "x => 1", expect=2).stderr
    assert "no column 'y'" in run("results", "pi", "--where", "y = 1", expect=2).stderr
    assert "'x' is float64" in run("results", "pi", "--where", "x = 'a'", expect=2).stderr


@pytest.mark.parametrize("words", [["--format", "xls"], ["--out", "rows.xls"], ["--out", "rows"]])
def test_an_unknown_format_names_the_known_ones(words: list[str], here: Lab) -> None:
    done = run("results", "pi", *words, expect=2)
    assert "csv, json, parquet" in done.stderr


@pytest.mark.parametrize("name", ["missing/rows.csv", "missing/rows.parquet", "stacks.csv"])
def test_a_file_that_cannot_be_written_leaves_nothing(name: str, here: Lab) -> None:
    ran(here, batch([0], ints("i", 1)))
    (here.root / "stacks.csv").mkdir()
    before = sorted(here.root.iterdir())
    done = run("results", "pi", "--out", name, expect=2)
    assert name in done.stderr and "cannot be written" in done.stderr
    assert sorted(here.root.iterdir()) == before


def test_a_reader_that_goes_away_ends_the_command_quietly(here: Lab) -> None:
    wide = batch([0] * 20_000, floats("x", *[0.1] * 20_000), rows=list(range(20_000)))
    ran(here, wide)
    with subprocess.Popen(
        [*PROGRAM, "results", "pi", "--format", "csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "point,row,x\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("words", [["results", "pi", "--format", "csv"], ["results", "pi"], ["status"]])
def test_a_reader_that_goes_away_before_the_last_words_is_told_the_same(here: Lab, words: list[str]) -> None:
    """Where they are few, they wait in a buffer until the command has ended; tables do not."""
    ran(here, batch([0], floats("x", 0.1)))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert b"Exception" not in process.stderr.read()
    assert process.returncode == 141


# logs


def end(here: Lab, experiment: Experiment) -> None:
    with closing(databases.connect(here.database_url, here.root)) as database:
        claim = database.claim(experiment.id, agent="agent", lease_s=3600)
        assert claim
        database.release(claim, Outcome(State.SUCCEEDED, 1, 0))


def test_logs_follow_a_running_job_to_its_end(here: Lab, capsys) -> None:
    experiment = ran(here, state=None)
    log = here.run_dir(experiment.id) / "job.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\n")

    def go_on() -> None:
        time.sleep(0.7)
        log.write_text("first\nsecond\n")
        end(here, experiment)

    assert run("logs", "pi").stdout == "first\n"
    job = threading.Thread(target=go_on)
    job.start()
    assert run("logs", "pi", "-f").stdout == "first\nsecond\n"
    job.join()


def test_logs_follow_a_log_that_is_shortened_meanwhile(here: Lab) -> None:
    experiment = ran(here, state=None)
    file = here.run_dir(experiment.id) / "job.log"
    file.parent.mkdir(parents=True)
    log = BoundedLog(file, head=100, tail=200)
    log.write(b"first\n" + b"a line\n" * 60)

    def go_on() -> None:
        time.sleep(0.7)
        log.write(b"another line\n" * 100)
        log.write(b"last\n")
        end(here, experiment)

    job = threading.Thread(target=go_on)
    job.start()
    said = run("logs", "pi", "-f").stdout
    assert said.startswith("first\na line\n") and "bytes of the log are left out here ---\nanother line\n" in said
    assert said.endswith("another line\nlast\n") and said.count("left out") == 1
    job.join()


def test_logs_before_a_run_and_on_another_machine(here: Lab) -> None:
    registered(here)
    assert "ems up pi" in run("logs", "pi", expect=4).stderr
    ran(here)
    assert "not on this machine: it ran as agent" in run("logs", "pi", expect=2).stderr
