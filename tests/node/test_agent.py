"""One run of a command: its rows, its end and the orders that it hears."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from ems.databases import State
from ems.node.agent.agent import GOES_ON, AgentConfig, agent_name
from ems.node.agent.config import tell_to_listen
from tests.node.bench import ROWS, Bench, bench, command_spec, family, go, half, locked
from tests.processes import PATIENCE_S, eventually, having

__all__ = ["bench"]


def test_rows_are_stored_while_the_job_runs(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    eventually(lambda: len(bench.values().get("n", [])) == 100)
    assert (bench.row().state, bench.row().agent) == (State.RUNNING, agent_name(run_dir))
    second = bench.start(run_dir)
    assert second.wait(PATIENCE_S) == 0
    assert agent.poll() is None
    go(run_dir)
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert (row.state, row.points_done, row.points_failed, row.rows_stored) == (State.SUCCEEDED, 1, 0, 200)
    assert bench.values() == ROWS
    assert list(run_dir.glob("spool*")) == []
    assert not (run_dir / "exit.json").exists()
    assert (run_dir / "job.log").read_text() == "--- attempt 1 ---\n"
    assert bench.run(run_dir).attempt == 1
    assert (run_dir / "starts").read_text() == "x"


def test_a_failed_program_says_what_it_raised_whatever_was_printed_after_it(bench: Bench) -> None:
    """What is said at the end of a program follows its traceback, and a message has several lines."""
    program = (
        "import atexit\natexit.register(print, 'epoch\\n' * 50)\nraise ValueError('no five\\n  but six\\nas seen')"
    )
    row = bench.run(bench.new(program))
    assert row.error == "ValueError: no five (exit code 1)"
    assert row.log_tail == "epoch\n" * 29 + "\n"


def test_a_failed_job_keeps_its_rows_and_last_words_and_can_be_repeated(bench: Bench) -> None:
    fails = (
        "import os, sys\n"
        "again = os.path.exists('../../again')\n"
        "file = open(os.environ['EMS_RESULTS_DIR'] + '/a.csv', 'w')\n"
        "file.write('n\\n10\\n' if again else 'n\\n1\\n2\\n345')\n"
        "print('line\\n' * 100 + 'last words')\n"
        "sys.exit(0 if again else 3)\n"
    )
    run_dir = bench.new(fails)
    row = bench.run(run_dir)
    assert (row.state, row.error, row.points_done, row.points_failed) == (
        State.FAILED,
        "last words (exit code 3)",
        0,
        1,
    )
    assert row.log_tail == "line\n" * 29 + "last words\n"
    assert bench.values() == {"n": [1, 2]}
    (run_dir / "again").touch()
    bench.database.reopen("e1")
    again = bench.run(run_dir)
    assert (again.state, again.attempt, again.error) == (State.SUCCEEDED, 2, "")
    assert bench.values() == {"n": [10]}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (
            "import sys, traceback\ntry: {}['caught']\nexcept KeyError: traceback.print_exc()\n"
            "print('giving up', file=sys.stderr); sys.exit(3)",
            r"^giving up \(exit code 3\)$",
        ),
        (
            "import os; print('all well', flush=True); os.kill(os.getpid(), 9)",
            r"^killed.*; the last line of its log: all",
        ),
        ("import os; os.kill(os.getpid(), 9)", r"killed by signal 9 \(SIGKILL\): often the machine ran out of memory"),
        ("import os; open(os.environ['EMS_RESULTS_DIR'] + '/a.csv', 'w').write('n,m\\n1\\n')", r"a\.csv:2: 1 fields"),
        (
            "import os, time\nr = os.environ['EMS_RESULTS_DIR']\n"
            "[os.symlink('/dev/full', f'{r}/../spool-1/{n:08d}.batch.tmp') for n in range(2, 9)]\n"
            "open(r + '/a.csv', 'w').write('n\\n1\\n'); time.sleep(600)",
            r"spool-1 is full: No space left",
        ),
    ],
)
def test_what_went_wrong_is_in_the_row(bench: Bench, code: str, problem: str) -> None:
    run_dir = bench.new(code)
    bench.run(run_dir)
    assert bench.row().state is State.FAILED
    assert bench.values() == {}
    assert re.search(problem, bench.row().error)
    assert family(run_dir) == []


IN_RESULTS = "import os, pathlib, time\nos.chdir(os.environ['EMS_RESULTS_DIR'])\n"


def test_what_is_not_read_is_said_at_the_end(bench: Bench) -> None:
    """A job's files that give no rows are not passed over in silence."""
    code = (
        "pathlib.Path('run1').mkdir(); pathlib.Path('run1/r.csv').write_text('n\\n1\\n')\n"
        "for name in ('r.csv.gz', 'r.tsv', 'r.json', '.hidden'): pathlib.Path(name).write_text('x')\n"
        "os.mkfifo('b.csv')\n"
    )
    run_dir = bench.new(IN_RESULTS + code)
    row = bench.run(run_dir)
    names = {".hidden": 1, "b.csv": 0, "r.csv.gz": 1, "r.json": 1, "r.tsv": 1, "run1/r.csv": 4}
    sizes = [f"EMS_RESULTS_DIR/{name} ({size} byte{'' if size == 1 else 's'})" for name, size in names.items()]
    said = [
        f"0 rows; not read: {', '.join(sizes)}",
        "To have rows, say in the stack file where they are:",
        "    results:",
        "      table: r",
        '      files: ["{results}/r.tsv", "{results}/run1/r.csv"]',
        "A job without rows says `results: none`.",
    ]
    assert (row.state, row.error, row.log_tail.splitlines()) == (State.SUCCEEDED, "", said)
    assert (run_dir / "job.log").read_text().splitlines()[-6:] == [f"--- {said[0]} ---", *said[1:]]
    assert (run_dir / "left/attempt-1/EMS_RESULTS_DIR/run1/r.csv").read_text() == "n\n1\n"


def test_declared_columns_are_read_as_declared(bench: Bench) -> None:
    code = "pathlib.Path('a.csv').write_text('zip,n\\n1234,1\\nx,2\\n')"
    run_dir = bench.prepare(bench.register(spec=command_spec({"zip": "text"})), IN_RESULTS + code)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == {"zip": ["1234", "x"], "n": [1, 2]}


ENDLESS = IN_RESULTS + (
    "file = open('a.csv', 'w')\n"
    "file.write('t,n\\n')\n"
    "line = '10,5\" pipe\\n' * 5000; endless = '10,5 pipe\\n' * 5000\n"
    "for _ in range(30): file.write(line)\n"
    "file.write('\"open\\n')\n"
    "(pathlib.Path.cwd().parent / 'half').touch()\n"
    "while True: file.write(endless); file.flush(); time.sleep(0.01)\n"
)


@pytest.mark.parametrize("order", ["stop", "SIGTERM", "deadline"])
def test_orders_are_obeyed_while_rows_never_end(bench: Bench, order: str) -> None:
    """Stray quotes, an open one, and a job that writes faster than is read."""
    run_dir = bench.new(ENDLESS, max_hours=6 / 3600 if order == "deadline" else None)
    agent = bench.start(run_dir)
    half(run_dir, agent)
    began = time.monotonic()
    if order == "stop":
        bench.database.request_cancel("e1")
    elif order == "SIGTERM":
        agent.terminate()
    assert agent.wait(PATIENCE_S) in {0, 1, GOES_ON}
    assert time.monotonic() - began < 45
    expected = {"stop": State.CANCELLED, "SIGTERM": State.LOST, "deadline": State.EXPIRED}
    assert bench.row().state is expected[order]
    assert family(run_dir) == []


@pytest.mark.parametrize("later_s", [0.0, 0.5])
def test_a_signal_to_all_processes_is_not_taken_for_the_jobs_failure(bench: Bench, later_s: float) -> None:
    """As a shutdown and a preemption send it; the agent may hear of it last."""
    run_dir = bench.new(IN_RESULTS + "(pathlib.Path.cwd().parent / 'half').touch(); time.sleep(600)")
    agent = bench.start(run_dir)
    half(run_dir, agent)
    keeper = having("ems.node.job.keeper", family(run_dir))
    (program,) = [process for process in family(run_dir) if process not in keeper]
    program.terminate()
    time.sleep(later_s)
    agent.terminate()
    assert agent.wait(PATIENCE_S) == GOES_ON
    assert (bench.row().state, bench.row().error) == (State.LOST, "The agent was told to stop (SIGTERM).")


def test_a_file_rewritten_in_place_fails_the_run(bench: Bench) -> None:
    """Rows of one width, of which an early one changes after it was read."""
    code = (
        "file = open('a.csv', 'w+')\n"
        "file.write('n,state\\n' + '0,running\\n' * 100); file.flush(); time.sleep(2)\n"
        "file.seek(8); file.write('0,success\\n')\n"
    )
    row = bench.run(bench.new(IN_RESULTS + code))
    assert row.state is State.FAILED and "shortened or rewritten after 101 lines" in row.error


def test_without_a_whole_bundle_nothing_is_claimed(bench: Bench) -> None:
    """So whoever starts agents makes it again, and nothing was lost."""
    run_dir = bench.new()
    package = Path(AgentConfig.read(run_dir).bundle)
    package.write_bytes(package.read_bytes() + b"x")
    assert bench.start(run_dir).wait(PATIENCE_S) == 3
    assert f"{package} is damaged" in (run_dir / "agent.log").read_text()
    package.unlink()
    assert bench.start(run_dir).wait(PATIENCE_S) == 3
    assert "The bundle cannot be read" in (run_dir / "agent.log").read_text()
    assert (bench.row().state, bench.row().attempt) == (State.REGISTERED, 0)


def test_a_column_of_another_type_in_the_table_fails_the_run(bench: Bench) -> None:
    code = "import os; open(os.environ['EMS_RESULTS_DIR'] + '/a.csv', 'w').write('n\\n{}\\n')"
    bench.run(bench.new(code.format("text")))
    row = bench.run(bench.prepare(bench.register("e2"), code.format("1"), id="e2"), "e2")
    assert row.state is State.FAILED
    assert "n" in row.error and "text" in row.error


def test_an_agent_that_is_told_to_listen_hears_a_cancellation_before_its_next_beat(bench: Bench) -> None:
    run_dir = bench.new(beat_s=3600.0, lease_s=7200.0)
    agent = bench.start(run_dir)
    half(run_dir, agent)
    bench.database.request_cancel("e1")
    tell_to_listen(run_dir)
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.CANCELLED
    tell_to_listen(bench.root / "runs" / "no agent's folder")


def test_a_cancelled_job_stops_and_keeps_its_rows(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    bench.database.request_cancel("e1")
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.CANCELLED
    assert bench.values()["n"] == ROWS["n"][:100]
    assert family(run_dir) == []


def test_the_deadline_ends_a_job_even_while_the_database_is_locked(bench: Bench) -> None:
    run_dir = bench.new(max_hours=8 / 3600)
    agent = bench.start(run_dir)
    half(run_dir, agent)
    with locked(bench):
        eventually(lambda: family(run_dir) == [])
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.EXPIRED
    assert bench.values()["n"] == ROWS["n"][:100]


def test_an_agent_that_is_told_to_stop_lets_go_at_once(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    agent.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert agent.poll() is None, (run_dir / "agent.log").read_text()
    agent.terminate()
    assert agent.wait(PATIENCE_S) == GOES_ON
    assert bench.row().state is State.LOST
    assert family(run_dir) == []
    go(run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS


def test_a_large_result_and_parquet_come_through_a_small_spool(bench: Bench) -> None:
    code = """
import os, pyarrow as pa, pyarrow.parquet as pq
results = os.environ["EMS_RESULTS_DIR"]
with open(results + "/a.csv", "w") as file:
    file.write("n\\n" + "".join(f"{n}\\n" for n in range(30_000)))
pq.write_table(pa.table({"n": pa.array(range(30_000, 35_000))}), results + "/b.parquet")
"""
    row = bench.run(bench.new(code, spool_limit_mb=0.001))
    assert (row.state, row.error) == (State.SUCCEEDED, "")
    assert sorted(bench.values()["n"]) == list(range(35_000))
