"""Faults that take minutes, or need Linux, root and a C compiler: `make drill` runs them."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from tests.clusters.clock import make_clock
from tests.end_to_end.conftest import User
from tests.end_to_end.test_kills import DEAR, database_locked, runs
from tests.end_to_end.test_sweep_faults import SLOW, Faulty
from tests.end_to_end.test_sweeps import POINTS, Sweeper
from tests.node.bench import Bench, bench, locked, pause
from tests.processes import PATIENCE_S, eventually, matching

__all__ = ["bench"]


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that says by how many seconds the clocks of all agents and jobs are wrong that are started from now on."""
    library, offset = make_clock(tmp_path), tmp_path / "offset"
    offset.write_text("0")
    variables = {"LD_PRELOAD": str(library), "OFFSET": str(offset)}
    monkeypatch.setattr(Faulty, "env", variables)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return offset


def charged_hours(bench: Bench) -> float:
    with closing(sqlite3.connect(bench.root / "ems.db")) as connection:
        ((hours,),) = connection.execute("SELECT min(hours) FROM charge")
        return float(hours)


def clock_of(bench: Bench) -> float:
    """By how many hours the newest heartbeat is off."""
    heartbeat = bench.row().heartbeat_at
    assert heartbeat
    return (heartbeat - datetime.now(UTC)).total_seconds() / 3600


@pytest.mark.parametrize("then", ["nothing", "kill"])
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_changes_nothing(bench: Bench, clock: Path, hours: int, then: str) -> None:
    sweep = Faulty(bench, code=SLOW, points=200, workers=2)
    sweep.begin()
    clock.write_text(str(3600 * hours))
    eventually(lambda: abs(clock_of(bench) - hours) < 0.1)
    if then == "kill":
        sweep.agent.kill()
        sweep.agent.wait()
        sweep.agent = bench.start(sweep.run_dir)
    sweep.assert_whole(attempts=2 if then == "kill" else 1)
    assert charged_hours(bench) >= 0


def test_a_clock_that_jumps_to_and_fro_holds_up_nothing(bench: Bench, clock: Path) -> None:
    """Each jump may come between a message of Dask's and the time for which the next one waits."""
    sweep = Faulty(bench, code=SLOW, points=200, workers=2)
    sweep.begin()
    while sweep.agent.poll() is None:
        for hours in (1, -1):
            clock.write_text(str(3600 * hours))
            time.sleep(0.05)
    sweep.assert_whole(attempts=1)


def test_an_agent_that_hangs_while_the_clock_is_set_is_replaced(bench: Bench, clock: Path) -> None:
    sweep = Faulty(bench, code=SLOW, points=200, workers=2)
    sweep.begin()
    hanging = sweep.agent
    pause(hanging, bench)
    clock.write_text("3600")
    sweep.agent = bench.start(sweep.run_dir)
    sweep.assert_whole(attempts=2)
    assert hanging.wait(PATIENCE_S) == -signal.SIGKILL


def test_a_database_that_is_locked_for_two_minutes_is_waited_for(bench: Bench) -> None:
    sweep = Faulty(bench, code=SLOW, points=400, workers=2)
    sweep.begin()
    with locked(bench):
        time.sleep(120)
    sweep.assert_whole()
    assert sweep.calls() == Counter(range(400))


def test_a_worker_that_is_stopped_for_longer_than_any_connection_waits_goes_on(bench: Bench) -> None:
    sweep = Faulty(bench, code=SLOW, points=4000, workers=2)
    sweep.begin()
    stopped = sweep.workers()[0]
    stopped.suspend()
    time.sleep(75)
    stopped.resume()
    sweep.assert_whole()
    assert sweep.calls() == Counter(range(4000))


def test_a_worker_that_takes_long_to_start_is_waited_for(bench: Bench) -> None:
    sweep = Faulty(bench, code=f"import time\ntime.sleep(20)\n{SLOW}", points=100, workers=1)
    sweep.begin()
    sweep.assert_whole()
    assert "died" not in sweep.log()


def between_batches(sweep: Faulty, bench: Bench) -> list[psutil.Process]:
    """All of it, suspended where nobody is within a transaction or a file."""
    while True:
        tree = sweep.tree()
        with locked(bench):
            for process in tree:
                process.suspend()
        if not list(matching(sweep.run_dir, "spool-1/*.tmp")):
            return tree
        for process in tree:
            process.resume()


def test_a_file_system_that_is_really_full_is_waited_for(bench: Bench) -> None:
    sweep = Faulty(bench, code=SLOW, points=150, workers=2)
    sweep.begin()
    folder, tree = sweep.run_dir / "spool-1", between_batches(sweep, bench)
    waiting = {file: file.read_bytes() for file in folder.iterdir()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "ems", folder], check=True)
    try:
        for file, content in waiting.items():
            file.write_bytes(content)
        with pytest.raises(OSError, match="No space left"):
            (folder / "others").write_bytes(bytes(2 << 20))
        for process in reversed(tree):
            process.resume()
        eventually(lambda: "No space left on device" in sweep.log())
        time.sleep(20)
        (folder / "others").unlink()
        sweep.assert_whole()
        assert sweep.calls() == Counter(range(150))
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_two_at_once_are_one_sweep(user: User) -> None:
    sweeper = Sweeper(user.root, user.started)
    sweeper.sweep()
    commands = [sweeper.start("up", "e"), sweeper.start("up", "e")]
    assert [command.wait(PATIENCE_S) for command in commands] == [0, 0]
    sweeper.assert_whole()
    assert sweeper.calls() == Counter(POINTS) and runs(sweeper) == 1


def test_everything_sleeps_for_longer_than_a_lease_and_goes_on(user: User) -> None:
    sweeper = Sweeper(user.root, user.started)
    sweeper.sweep(DEAR)
    command = sweeper.start("up", "e")
    sweeper.wait(lambda: sweeper.stored() >= 5)
    with database_locked(sweeper):  # nobody of them is within a transaction
        everything = sweeper.processes()
        for process in everything:
            process.suspend()
    sweeper.wait(lambda: "lost" in sweeper.ems("status").stdout)
    time.sleep(60)
    for process in everything:
        process.resume()
    assert command.wait(PATIENCE_S) == 0, sweeper.said(command)
    sweeper.assert_whole()
    assert sweeper.calls() == Counter(POINTS) and runs(sweeper) == 1
