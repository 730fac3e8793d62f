"""What one agent leaves and another one finds: rows, a job that has ended, a claim, a process that hangs."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from array import array
from contextlib import closing
from pathlib import Path

import pytest

from ems.databases import State
from ems.node.agent.agent import agent_name
from ems.spool.batch import Batch, Column
from ems.spool.folder import Spool
from tests.node.bench import JOB, ROWS, Bench, bench, family, go, half, lapse, locked, pause
from tests.processes import PATIENCE_S, eventually, having

__all__ = ["bench"]


def storing_left(bench: Bench, run_dir: Path) -> None:
    """The job has ended, and its agent was killed with half of the rows in the spool."""
    agent = bench.start(run_dir)
    half(run_dir, agent)
    eventually(lambda: bench.row().rows_stored)
    with locked(bench):
        go(run_dir)
        eventually((run_dir / "exit.json").exists)
        agent.kill()
        agent.wait()


def test_a_locked_database_is_waited_for_and_a_crash_then_costs_no_second_run(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    with locked(bench):
        go(run_dir)
        eventually((run_dir / "exit.json").exists)
        assert list((run_dir / "spool-1").iterdir())
        agent.kill()
        agent.wait()
        heir = bench.start(run_dir)
        time.sleep(1)
        assert heir.poll() is None
    assert heir.wait(PATIENCE_S) == 0
    assert (bench.row().state, bench.row().attempt) == (State.SUCCEEDED, 2)
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "x"


def test_rows_of_a_command_are_of_one_run_also_when_another_machine_ran_in_between(bench: Bench) -> None:
    run_dir = bench.new()
    storing_left(bench, run_dir)
    claim = bench.database.claim("e1", agent="another machine", lease_s=0)
    assert claim is None  # while the first one's lease holds
    lapse(bench)
    claim = bench.database.claim("e1", agent="another machine", lease_s=0)
    rows = Batch(array("q", [0]), array("q", [0]), (Column("n", "int64", [-1]),), replaces=(0,))
    bench.database.store(claim, rows)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_nothing_of_an_outdated_run_is_stored_after_a_cancellation(bench: Bench) -> None:
    """Of a command whose agent was cut off, when another machine has run since and nobody is to compute any more."""
    run_dir = bench.new()
    storing_left(bench, run_dir)
    (run_dir / "exit.json").unlink()
    lapse(bench)
    claim = bench.database.claim("e1", agent="another machine", lease_s=3600)
    rows = Batch(array("q", [0]), array("q", [0]), (Column("n", "int64", [-1]),), replaces=(0,))
    bench.database.store(claim, rows)
    bench.database.request_cancel("e1")
    lapse(bench)
    assert bench.database.claim("e1", agent=agent_name(run_dir), lease_s=3600).cancel  # by an agent that died at once
    lapse(bench)
    row = bench.run(run_dir)
    assert (row.state, bench.values()["n"]) == (State.CANCELLED, [-1])
    assert list(run_dir.glob("spool*")) == []


@pytest.mark.parametrize("file", ["exit.json", "batch"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"rows": 1, "state": "lost"}'])
def test_what_only_was_to_be_stored_is_run_again_where_it_is_damaged(bench: Bench, file: str, content: bytes) -> None:
    run_dir = bench.new()
    storing_left(bench, run_dir)
    batch = sorted((run_dir / "spool-1").iterdir())[0]
    (run_dir / file if file == "exit.json" else batch).write_bytes(content)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_a_job_that_ran_again_as_rows_were_lost_is_not_run_once_more(bench: Bench) -> None:
    run_dir = bench.new()
    storing_left(bench, run_dir)
    sorted((run_dir / "spool-1").iterdir())[0].write_bytes(b"")
    for name in ("half", "go"):
        (run_dir / name).unlink()
    storing_left(bench, run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_a_database_that_was_set_back_has_the_command_run_again(bench: Bench) -> None:
    """Its copy is from before the last rows were stored; what waits in the spool is not all of them."""
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    eventually(lambda: bench.row().rows_stored == 100)
    agent.kill()
    agent.wait()
    with closing(sqlite3.connect(bench.root / "ems.db")) as connection, connection:
        connection.execute("DELETE FROM r WHERE n >= 50")
        connection.execute("UPDATE experiment SET rows_stored = 50")
    Spool(run_dir / "spool-1").write(Batch(array("q", [0]), array("q", [100]), (Column("n", "int64", [100]),)))
    outcome = {"rows": 101, "state": "succeeded", "points_done": 1, "points_failed": 0}
    (run_dir / "exit.json").write_text(json.dumps(outcome))
    go(run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_a_cancellation_that_no_agent_heard_holds(bench: Bench) -> None:
    """What a killed agent had in its spool is stored, and nothing is computed."""
    run_dir = bench.new()
    storing_left(bench, run_dir)
    (run_dir / "exit.json").unlink()  # as if it had been killed a moment before
    assert bench.database.request_cancel("e1").state is State.RUNNING
    row = bench.run(run_dir)
    assert (row.state, row.attempt, row.error) == (State.CANCELLED, 2, "Cancelled on request.")
    assert bench.values() == ROWS and (run_dir / "starts").read_text() == "x"
    bench.database.reopen("e1")
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS and (run_dir / "starts").read_text() == "xx"


@pytest.mark.parametrize("victims", ["agent", "agent and keeper"])
def test_after_kill_9_another_agent_brings_the_same_rows(bench: Bench, victims: str) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    (command,) = having("job.py", family(run_dir))
    if victims == "agent and keeper":
        agent.send_signal(signal.SIGSTOP)
        command.parent().kill()
    agent.kill()
    agent.wait()
    if victims == "agent":
        eventually(lambda: family(run_dir) == [])
    else:
        assert command.is_running()
    go(run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert family(run_dir) == []
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_an_agent_that_hangs_is_replaced(bench: Bench) -> None:
    run_dir = bench.new(lease_s=1.0)
    zombie = bench.start(run_dir)
    half(run_dir, zombie)
    pause(zombie, bench)
    eventually(lambda: bench.row().state is State.LOST)
    go(run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    zombie.send_signal(signal.SIGCONT)
    assert zombie.wait(PATIENCE_S) == -signal.SIGKILL
    assert bench.values() == ROWS


def test_a_zombie_in_another_folder_is_fenced_out(bench: Bench) -> None:
    run_dir = bench.new(lease_s=1.0)
    elsewhere = bench.prepare(bench.root / "elsewhere", JOB.replace("n / 7", "n / 9"))
    zombie = bench.start(run_dir)
    half(run_dir, zombie)
    pause(zombie, bench)
    eventually(lambda: bench.row().state is State.LOST)
    go(elsewhere)
    assert bench.run(elsewhere).state is State.SUCCEEDED
    zombie.send_signal(signal.SIGCONT)
    assert zombie.wait(PATIENCE_S) == 0
    assert family(run_dir) == []
    assert bench.values() == {"n": ROWS["n"], "x": [n / 9 for n in range(200)]}
    assert bench.row().attempt == 2
