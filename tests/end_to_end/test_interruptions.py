"""Ctrl-C, ended and closed terminals, locks of the living and the dead, a database that is away, on the real engine."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ems import databases
from tests.end_to_end.conftest import EMS, User, expected
from tests.processes import PATIENCE_S

pytestmark = pytest.mark.trial
ROWS = 30


def begin(user: User) -> None:
    """An experiment whose run waits in its middle for `go_on`."""
    user.experiment(rows=ROWS, pause_s=0.15, held_at=ROWS // 3)


def in_mid_run(user: User) -> bool:
    return 2 < user.stored() < ROWS // 2


def assert_cancelled_and_goes_on(user: User) -> None:
    """The run was stopped in order, its rows were kept, and a retry ends as if nothing had happened."""
    kept = len(user.rows())
    user.go_on()
    assert user.state() == "cancelled" and 2 < kept < ROWS and user.rows() == expected(kept)
    user.assert_nothing_left()
    user.ems("up", "e", "--retry")
    user.assert_undisturbed(ROWS)
    assert user.query("SELECT attempt, state FROM run ORDER BY attempt") == [(1, "cancelled"), (2, "succeeded")]


@pytest.mark.usefixtures("an_engine")
@pytest.mark.parametrize(("number", "send"), [(signal.SIGINT, os.kill), (signal.SIGTERM, os.killpg)])
def test_a_signal_to_up_or_to_its_group_cancels_the_run(
    user: User, number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    begin(user)
    command = user.start("up", "e")
    user.wait(lambda: in_mid_run(user))
    send(command.pid, number)
    assert command.wait(PATIENCE_S) == 130
    assert "ems up e --retry" in " ".join(user.said(command).split())
    assert "Traceback" not in user.said(command)
    assert_cancelled_and_goes_on(user)


def test_a_signal_to_plain_pulumi_cancels_the_run(user: User) -> None:
    begin(user)
    user.pulumi("stack", "init", "e")
    command = user.start("pulumi", "up", "--yes", "--skip-preview", "--stack", "e")
    user.wait(lambda: in_mid_run(user))
    command.send_signal(signal.SIGINT)
    assert command.wait(PATIENCE_S) not in {0, -signal.SIGINT}
    assert "Traceback" not in user.said(command)
    assert_cancelled_and_goes_on(user)


@pytest.mark.usefixtures("an_engine")
def test_a_signal_before_the_run_leaves_it_to_be_begun(user: User) -> None:
    begin(user)
    user.go_on()
    command = user.start("up", "e")
    user.wait(user.updates)
    command.send_signal(signal.SIGINT)
    assert command.wait(PATIENCE_S) == 130
    assert "Traceback" not in user.said(command)
    user.ems("up", "e", "--retry")
    user.assert_undisturbed(ROWS)


def test_a_signal_is_obeyed_also_where_a_shell_ignores_it_for_what_it_starts(user: User) -> None:
    """As it does for `ems up e &` in a script: Pulumi obeys it there too, and the exit code is the same."""
    begin(user)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = user.start("up", "e")
    signal.signal(signal.SIGINT, before)
    user.wait(lambda: in_mid_run(user))
    command.send_signal(signal.SIGINT)
    assert command.wait(PATIENCE_S) == 130
    assert user.state() == "cancelled"


class Terminal:
    """`ems up e` in a terminal of its own."""

    def __init__(self, user: User) -> None:
        self.pid, self._line = pty.fork()
        if self.pid == 0:
            os.chdir(user.root)
            os.execv(EMS[0], [*EMS, "up", "e"])
        self.said = b""
        os.set_blocking(self._line, False)

    def read(self) -> bytes:
        """All that was said: to be called often, as a terminal that nobody reads from blocks who writes."""
        try:
            while piece := os.read(self._line, 1 << 16):
                self.said += piece
        except OSError:  # nothing new, or nobody left who could say anything
            return self.said
        return self.said

    def type(self, keys: bytes) -> None:
        os.write(self._line, keys)

    def close(self) -> None:
        os.close(self._line)

    def ended(self) -> tuple[int] | None:
        """The exit code, or minus the signal, once it has ended."""
        self.read()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return (os.waitstatus_to_exitcode(status),) if pid else None


@pytest.mark.usefixtures("an_engine")
def test_control_c_in_a_terminal_cancels_the_run(user: User) -> None:
    begin(user)
    terminal = Terminal(user)
    user.wait(lambda: terminal.read() and in_mid_run(user))
    terminal.type(b"\x03")
    assert user.wait(terminal.ended) == (130,)
    assert b"Traceback" not in terminal.said
    terminal.close()
    assert_cancelled_and_goes_on(user)


def hang_up(user: User) -> None:
    command = user.start("up", "e")
    user.wait(lambda: in_mid_run(user))
    command.send_signal(signal.SIGHUP)
    assert command.wait(PATIENCE_S) == -signal.SIGHUP


def close_the_terminal(user: User) -> None:
    terminal = Terminal(user)
    user.wait(lambda: terminal.read() and in_mid_run(user))
    terminal.close()
    assert user.wait(lambda: os.waitpid(terminal.pid, os.WNOHANG)[0])


@pytest.mark.usefixtures("an_engine")
@pytest.mark.parametrize("leave", [hang_up, close_the_terminal])
def test_a_closed_terminal_leaves_the_run_alone(user: User, leave: Callable[[User], None]) -> None:
    begin(user)
    leave(user)
    user.go_on()
    user.wait(lambda: not user.updates())
    user.wait(lambda: user.state() == "succeeded")
    user.ems("up", "e")
    user.assert_undisturbed(ROWS)
    assert user.query("SELECT count(*) FROM run") == [(1,)]


@pytest.mark.usefixtures("an_engine")
def test_a_run_is_attached_to_after_its_terminal_was_closed(user: User) -> None:
    begin(user)
    hang_up(user)
    user.go_on()
    user.ems("up", "e")
    user.assert_undisturbed(ROWS)
    assert user.query("SELECT count(*) FROM run") == [(1,)]


def lock(user: User, pid: int, hostname: str = os.uname().nodename) -> Path:
    """A lock as Pulumi writes it."""
    file = user.root / ".ems/state/.pulumi/locks/organization/lab/e/f6a1ae2b.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    moment = "2026-01-01T00:00:00.123456789Z"
    file.write_text(json.dumps({"pid": pid, "username": "me", "hostname": hostname, "timestamp": moment}))
    return file


def test_the_lock_of_a_dead_process_is_cleared(user: User) -> None:
    user.experiment()
    dead = subprocess.Popen(["true"])
    dead.wait()
    lock(user, dead.pid)
    user.ems("up", "e")
    user.assert_undisturbed(6)


def test_the_lock_of_a_number_that_another_program_got_is_cleared(user: User) -> None:
    user.experiment()
    lock(user, os.getpid())
    user.ems("up", "e")
    user.assert_undisturbed(6)


def test_the_lock_of_another_machine_is_refused_with_what_to_do(user: User) -> None:
    user.experiment()
    user.pulumi("stack", "init", "e")
    foreign = lock(user, 1, "another-machine")
    done = user.ems("up", "e", expect=7)
    assert "another-machine" in done.stderr and "ems pulumi cancel e" in done.stderr
    assert foreign.exists()
    user.pulumi("cancel", "e", "--yes")
    user.ems("up", "e")
    user.assert_undisturbed(6)


def test_the_lock_of_a_living_pulumi_is_waited_for(user: User) -> None:
    begin(user)
    user.pulumi("stack", "init", "e")
    plain = user.start("pulumi", "up", "--yes", "--skip-preview", "--stack", "e")
    user.wait(lambda: in_mid_run(user))
    held = user.locks()
    second = user.start("up", "e")
    user.wait(lambda: f"process {plain.pid}" in user.said(second))
    assert user.locks() == held and plain.poll() is None
    assert user.ems("up", "e", "--detach", expect=7).stderr.count(f"{second.pid}") == 1
    user.go_on()
    assert (plain.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0)
    user.assert_undisturbed(ROWS)
    assert user.query("SELECT count(*) FROM run") == [(1,)]


def test_two_at_once_are_one_run(user: User) -> None:
    begin(user)
    user.go_on()
    commands = [user.start("up", "e"), user.start("up", "e")]
    assert [command.wait(PATIENCE_S) for command in commands] == [0, 0]
    user.assert_undisturbed(ROWS)
    assert user.query("SELECT count(*) FROM run") == [(1,)]


def test_a_database_locked_for_long_in_mid_run_loses_nothing(user: User) -> None:
    begin(user)
    command = user.start("up", "e")
    user.wait(lambda: in_mid_run(user))
    with closing(sqlite3.connect(user.root / ".ems/ems.db", isolation_level=None, timeout=PATIENCE_S)) as other:
        other.execute("BEGIN EXCLUSIVE")
        user.go_on()
        time.sleep(20)
        other.execute("COMMIT")
    assert command.wait(PATIENCE_S) == 0
    user.assert_undisturbed(ROWS)
    assert user.query("SELECT count(*) FROM run") == [(1,)]


def test_a_run_without_a_living_agent_is_stopped_at_the_end_of_its_lease(user: User) -> None:
    trouble = user.root / ".ems/trouble"
    trouble.touch()
    user.experiment(trouble=str(trouble))
    user.ems("up", "e", expect=6)
    ((experiment,),) = user.query("SELECT id FROM experiment")
    with closing(databases.connect("sqlite:///.ems/ems.db", user.root)) as database:
        database.reopen(experiment)
        assert database.claim(experiment, agent="gone", lease_s=4)
    user.ems("stop", "e")
    assert user.state() == "cancelled"


def test_a_lost_database_is_filled_again_from_what_the_lab_says(user: User) -> None:
    user.experiment()
    user.ems("up", "e")
    for file in user.root.glob(".ems/ems.db*"):
        file.unlink()
    assert "ems up lab" in user.ems("up", "e", expect=4).stderr
    user.ems("up", "lab")
    user.ems("up", "e")
    assert user.rows() == expected(6) and user.query("SELECT state, attempt FROM experiment") == [("succeeded", 1)]
    assert "ems:index:Laptop" not in user.resources()
