"""What happens between a laptop and a server that is a machine of its own: minutes each, as root: `make drill` runs it.

Each ends in the rows of an undisturbed run, or in one clear error; nothing is left at work there.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.end_to_end.host_user import HostUser, database, files, host, net, user
from tests.end_to_end.server_user import SLOW, begin_sweep

__all__ = ["database", "files", "host", "net", "user"]
pytestmark = [pytest.mark.xdist_group("ssh"), pytest.mark.timeout(900)]
CUT_S = 60


PHASES: dict[str, Callable[[HostUser], object]] = {
    "prepare": lambda user: "sending" in user.said(user.started[-1]),
    "build": lambda user: user.host.running(),
    "run": lambda user: user.stored() > 20,
    "end": lambda user: user.stored() >= 395,
}


def described(user: HostUser, points: int, **cluster: object) -> None:
    user.write("experiments/e/sweep.py", SLOW)
    job = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, points, 1]}}}
    user.describe("s", job, cluster={"stack": "blade", **cluster})
    user.commit("A sweep")
    user.ems("up", "lab", "blade")


@pytest.mark.parametrize("phase", PHASES)
def test_a_minute_without_a_network_costs_nothing(user: HostUser, phase: str) -> None:
    described(user, 400)
    running = user.start("up", "s")
    user.wait(lambda: PHASES[phase](user) or running.poll() is not None)
    user.host.cut()
    time.sleep(CUT_S)
    user.host.reconnect()
    assert running.wait(600) == 0, user.said(running)
    user.assert_whole(400)


@pytest.mark.parametrize("phase", PHASES)
def test_a_server_that_is_restarted_costs_no_row(user: HostUser, phase: str) -> None:
    described(user, 400)
    running = user.start("up", "s")
    user.wait(lambda: PHASES[phase](user) or running.poll() is not None)
    user.host.reboot()
    assert running.wait(600) == 0, user.said(running)
    user.assert_whole(400)


def test_after_a_restart_that_nobody_saw_the_next_command_goes_on_and_what_ran_before_takes_no_room(
    user: HostUser,
) -> None:
    user.place(has={"cores": 2})
    begin_sweep(user, 300).kill()
    user.host.reboot()
    user.ems("up", "s")
    user.assert_whole(300)
    assert user.attempt() == 2


def test_a_host_whose_key_changes_is_told_and_its_run_goes_on_once_it_is_known_again(user: HostUser) -> None:
    running = begin_sweep(user, 400)
    user.host.make_host_key()
    user.host.hang_up()
    done = user.ems("logs", "s", expect=None)
    assert done.returncode not in {0, 1} and f"ssh-keygen -R {user.host.address}" in done.stderr
    assert running.wait(600) == 0 or f"The host key of {user.host.name} has changed" in user.said(running)
    user.host.trust()
    user.ems("up", "s")
    user.assert_whole(400)


def test_a_run_over_a_slow_network_takes_few_commands_and_keeps_its_speed(user: HostUser) -> None:
    described(user, 400)
    user.host.delay(0.2)
    before, began = user.host.sessions(), time.monotonic()
    user.ems("up", "s")
    took_s, commands = time.monotonic() - began, user.host.sessions() - before
    user.assert_whole(400)
    assert commands <= 16 + took_s / 2, (commands, took_s)  # a look each two seconds, or more seldom
    assert took_s < 280  # 400 points, each stored by itself, would take more, also of a machine that is not busy


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_a_server_whose_clock_is_wrong_is_told_and_runs_end_as_others(user: HostUser, ahead_s: int) -> None:
    user.host.set_clock(ahead_s)
    try:
        described(user, 200)
        found = json.loads(user.pulumi("stack", "output", "found", "--json", "--stack", "blade"))
        assert abs(found["clock_ahead_s"] - ahead_s) < 60
        user.ems("up", "s")
        user.assert_whole(200)
        assert user.attempt() == 1
        assert "0 s ago" not in user.ems("status").stdout
    finally:
        user.host.set_clock(0)


def test_a_disk_that_is_full_there_is_told_and_with_some_room_the_run_goes_on(user: HostUser) -> None:
    folder = user.host.home / "ems"
    user.host.run(f"mkdir {folder}; mount -t tmpfs -o size=2500m,uid=61000 ems {folder}")
    try:
        running = begin_sweep(user, 400)
        user.host.run(f"cat /dev/zero > {folder}/others || true")
        time.sleep(20)
        user.host.run(f"rm {folder}/others")
        running.wait(600)
        if running.returncode:
            assert "No space left on device" in user.said(running), user.said(running)
            user.ems("up", "s")
        user.assert_whole(400)
    finally:
        user.host.kill_all()
        user.host.run(f"umount --lazy {folder}")


def test_two_laptops_that_begin_at_once_have_one_run(user: HostUser) -> None:
    described(user, 200)
    other = HostUser(user.root.with_name("other"))
    subprocess.run(["git", "clone", "-q", user.root, other.root], check=True)
    try:
        (other.root / ".ems").mkdir(exist_ok=True)
        both = [user.start("up", "s"), other.start("up", "s")]
        for process, owner in zip(both, (user, other), strict=True):
            assert process.wait(600) == 0, owner.said(process)
        user.assert_whole(200)
        assert user.attempt() == 1
    finally:
        other.end()


def test_twenty_experiments_on_four_cores_run_four_at_a_time(user: HostUser) -> None:
    user.place(has={"cores": 4})
    names = [f"c{number}" for number in range(20)]
    script = 'b=$(date +%s%N); sleep 2; printf "began,ended\\n$b,$(date +%s%N)\\n"'
    user.write("experiments/e/readme.txt", "Commands of the shell need no code.")
    for number, name in enumerate(names):
        job = {"command": ["sh", "-c", script], "parameters": {"number": number}}
        user.describe(name, job, results={"table": "c", "stdout": "csv"})
    user.commit("Commands")
    user.ems("up", "lab", "blade")
    user.ems("up", *names, "--at-once", "8")
    runs = user.asked("SELECT began, ended FROM c")
    assert len(runs) == 20
    assert all(sum(began <= moment < ended for began, ended in runs) <= 4 for moment, _ in runs)
    assert not user.host.running()
