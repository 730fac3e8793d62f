"""Commands through OpenSSH's client, on a real sshd."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from ems.base.errors import Unreachable, UserError
from ems.clusters import openssh
from ems.clusters.openssh import Host, NotConnected
from tests.clusters.ssh_server import PASSWORD, SshServer, client, passcode, started
from tests.processes import eventually, having

pytestmark = pytest.mark.xdist_group("ssh")
LOGIN = "ems login there"
SHELLS = ("/bin/bash", "/usr/bin/fish", "/usr/bin/tcsh", "/bin/sh")
EVERY_BYTE = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def shared() -> Iterator[SshServer]:
    with started() as server:
        yield server


@pytest.fixture
def server(shared: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """The server, to which nobody is connected."""
    monkeypatch.setenv("PATH", client(shared)["PATH"])
    yield shared
    Host(shared.name, LOGIN, unattended=True).log_out()


@pytest.fixture
def host(server: SshServer) -> Host:
    return Host(server.name, LOGIN, unattended=True)


# What a command gives


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_gives_its_exit_code_and_both_streams_byte_by_byte_in_any_shell(server, host, shell):
    server.use_shell(shell)
    answer = host.run("cat; echo $HOME >&2; exit 3", EVERY_BYTE)
    assert (answer.code, answer.out, answer.err) == (3, EVERY_BYTE, f"{server.home}\n")
    server.use_shell("/bin/bash")


def test_what_a_shell_prints_when_it_starts_is_not_an_answer(server, host):
    file = server.home / ".bashrc"
    file.write_text("echo Welcome; echo 'Mind the step' >&2; printf 'no end of line'\n")
    try:
        assert host.run("printf abc; printf d >&2") == host.run("printf abc; printf d >&2")
        answer = host.run("printf abc; printf d >&2")
    finally:
        file.unlink()
    assert (answer.out, answer.err) == (b"abc", "d")


def test_neither_script_nor_payload_stands_on_a_command_line(host):
    script, payload = uuid.uuid4().hex, uuid.uuid4().hex
    seen = host.run(f": {script}; ps -eo args", payload.encode()).out.decode()
    assert "dd bs=1" in seen
    assert script not in seen and payload not in seen


@pytest.mark.parametrize("script", ["exit 7", "kill -KILL $$", "no-such-command", "cat >&2; false", "(", "exec true"])
def test_each_end_is_told_as_what_it_is(host, script):
    done = subprocess.run(["sh", "-c", f"(\n{script}\n)"], input=b"", capture_output=True, check=False)
    if script == "(":
        with pytest.raises(Unreachable):
            host.run(script)
        return
    assert host.run(script).code == done.returncode % 256 if done.returncode >= 0 else 128 - done.returncode


def test_a_command_that_does_not_end_is_ended_there(host):
    began = time.monotonic()
    answer = host.run("echo begun; sleep 1234", timeout_s=1)
    assert (answer.code, answer.out) == (124, b"begun\n")
    assert time.monotonic() - began < 60
    eventually(lambda: b"sleep 1234" not in host.run("ps -eo args | grep -v grep").out)


# One connection


def test_one_connection_serves_all_commands_of_all_threads_and_processes(server, host):
    before = server.attempts
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: host.run(f"echo {number}").out, range(40)))
    assert answers == [f"{number}\n".encode() for number in range(40)]
    assert Host(server.name, LOGIN, unattended=True).run("true").code == 0
    assert server.attempts == before + 1


def test_no_more_than_two_sessions_are_open_at_once(server, host):
    script = 'mkdir "$HOME/sessions/$$"; ls "$HOME/sessions" | wc -l; sleep 0.2; rmdir "$HOME/sessions/$$"'
    host.run('mkdir -p "$HOME/sessions"')
    with ThreadPoolExecutor(6) as pool:
        at_once = [int(found) for found in pool.map(lambda _: host.run(script).out, range(6))]
    host.run('rmdir "$HOME/sessions"')
    assert max(at_once) <= 2


def test_a_cut_connection_is_opened_again_for_the_next_command(server, host):
    assert host.run("true").code == 0
    server.cut()
    assert host.run("echo again").out == b"again\n"


def test_a_command_that_was_cut_is_repeated_only_if_it_may_be(server, host):
    file = server.home / "begun"
    script = 'echo once >> "$HOME/begun"; sleep 2'
    for repeats, times in ((False, 1), (True, 2)):
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(host.run, script, repeats=repeats)
            eventually(file.exists)
            server.cut()
            if repeats:
                assert running.result().code == 0
            else:
                with pytest.raises(Unreachable, match="was cut"):
                    running.result()
        assert file.read_text().splitlines() == ["once"] * times
        file.unlink()


def test_a_network_that_says_nothing_is_told_within_the_time(server, host):
    assert host.run("true").code == 0
    server.freeze()
    try:
        with pytest.raises(Unreachable, match="did not answer"):
            host.run("true", timeout_s=0.5)
    finally:
        server.freeze(frozen=False)
    assert host.run("echo back").out == b"back\n"


def test_a_process_that_holds_the_connection_and_is_killed_is_replaced(server, host):
    assert host.run("true").code == 0
    for process in having(server.name, psutil.process_iter()):
        process.kill()
    assert host.run("echo again").out == b"again\n"


# Who may log in


def test_where_a_person_logs_in_nothing_unattended_ever_tries(server):
    before = server.attempts
    host = Host(server.name, LOGIN, unattended=False)
    for _ in range(3):
        with pytest.raises(NotConnected, match=LOGIN):
            host.run("true")
    assert not host.is_connected()
    assert server.attempts == before


def test_a_connection_of_the_users_own_is_found_and_used(server, tmp_path):
    own = tmp_path / "own"
    config = (server.folder / "config").read_text()
    (server.folder / "config").write_text(f"{config}    ControlPath {own}\n")
    host = Host(server.name, LOGIN, unattended=False)
    subprocess.run(["ssh", "-M", "-N", "-f", server.name], check=True, stderr=subprocess.DEVNULL)
    try:
        before = server.attempts
        assert host.is_connected()
        assert host.run("echo through").out == b"through\n"
        assert host.log_in() == "yours"
        assert server.attempts == before
    finally:
        subprocess.run(["ssh", "-O", "exit", server.name], check=True, stderr=subprocess.DEVNULL)
        (server.folder / "config").write_text(config)
    with pytest.raises(NotConnected):
        host.run("true")


def test_a_key_that_is_refused_is_not_tried_again_and_again(server, host):
    keys = server.folder / "authorized_keys"
    allowed = keys.read_text()
    keys.write_text("")
    before = server.attempts
    try:
        for _ in range(3):
            with pytest.raises(NotConnected, match="Permission denied") as caught:
                host.run("true")
    finally:
        keys.write_text(allowed)
    assert LOGIN in caught.value.hint and "Nothing tries again for 10 min" in caught.value.hint
    assert server.attempts == before + 1
    assert host.log_in() == "new"
    assert host.run("true").code == 0


def test_a_host_whose_key_is_not_known_or_has_changed_is_refused(server, host):
    (server.folder / "known_hosts").rename(server.folder / "known")
    with pytest.raises(NotConnected, match="Host key verification failed"):
        host.run("true")
    (server.folder / "known").rename(server.folder / "known_hosts")
    assert host.log_in() == "new"
    host.log_out()
    server.end()
    server.make_host_key()
    server.start()
    with pytest.raises(UserError, match=r"host key of .* has changed"):
        host.run("true")
    server.trust()
    assert host.run("true").code == 0


def test_attempts_that_fail_come_ever_more_rarely_and_look_like_a_ban(server, host, monkeypatch):
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    opened = []
    monkeypatch.setattr(Host, "_opened", lambda self, real=Host._opened: opened.append(clock[0]) or real(self))
    server.end()
    try:
        for _ in range(200):
            with pytest.raises(Unreachable) as caught:
                host.run("true")
            clock[0] += 1
    finally:
        server.start()
    pauses = [round(after - before) for before, after in pairwise(opened)]
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    assert "it is down, or has banned this address" in caught.value.message
    clock[0] += 60
    assert host.run("true").code == 0


def test_a_host_that_answers_no_more_while_one_connects_is_given_up(server, host, monkeypatch):
    monkeypatch.setattr(openssh, "CONNECT_S", 1)
    server.freeze()
    try:
        with pytest.raises(Unreachable, match="is not reached"):
            host.run("true")
    finally:
        server.freeze(frozen=False)
    time.sleep(openssh.FAILED_S)
    assert host.run("true").code == 0


@pytest.mark.parametrize("name", ["", "-oProxyCommand=x", "a b", "$(x)", "a\nb"])
def test_what_names_no_machine_is_refused(name):
    with pytest.raises(UserError, match="names no machine"):
        Host(name, LOGIN, unattended=True)


def test_without_ssh_it_is_said(server, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no `ssh` here"):
        Host("anywhere", LOGIN, unattended=True).run("true")
    assert os.environ["PATH"] == str(tmp_path)


# A host that wants a password and a second factor, as Sherlock


@pytest.fixture(scope="module")
def careful() -> Iterator[SshServer]:
    with started(factors=True) as server:
        yield server


@pytest.fixture
def strict(careful: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """The server, to which nobody is connected."""
    monkeypatch.setenv("PATH", client(careful)["PATH"])
    yield careful
    Host(careful.name, LOGIN, unattended=False).log_out()


def logged_in(server: SshServer, *answers: str) -> tuple[int, str]:
    """`Host.log_in` at a terminal, where a person answers so: exit code, and what the terminal shows."""
    code = f"from ems.clusters.openssh import Host; print(Host({server.name!r}, 'x', unattended=False).log_in())"
    pid, line = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    shown, waiting = "", list(answers)
    with suppress(OSError):  # as at its end
        while piece := os.read(line, 1 << 16).decode():
            shown += piece
            if waiting and piece.endswith(": "):
                os.write(line, f"{waiting.pop(0)}\n".encode())
    os.close(line)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_a_person_answers_twice_and_all_commands_use_that_connection(strict):
    host = Host(strict.name, LOGIN, unattended=False)
    with pytest.raises(NotConnected, match=LOGIN):
        host.run("true")
    before = strict.attempts
    code, shown = logged_in(strict, PASSWORD, passcode())
    assert (code, shown.split()[-1]) == (0, "new")
    assert "Passcode or option" in shown
    assert PASSWORD not in shown
    assert host.run("echo in").out == b"in\n"
    assert logged_in(strict)[1].split()[-1] == "EMS's"
    assert strict.attempts == before + 1
    assert host.log_out()
    assert not host.log_out()
    with pytest.raises(NotConnected):
        host.run("true")
    assert strict.attempts == before + 1


def test_a_wrong_answer_opens_nothing_and_says_so(strict):
    code, shown = logged_in(strict, *(["wrong"] * 3))
    assert code == 1
    assert "lets nobody in" in shown
    assert not Host(strict.name, LOGIN, unattended=False).is_connected()
