"""The hosts of tests are what they say, and the connection to one that is a machine of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ems.base.errors import Unreachable, UserError
from ems.clusters import openssh
from ems.clusters.openssh import Host as Connection
from ems.clusters.server import site as server
from ems.clusters.server.settings import wanted
from ems.clusters.site import Reached, Site
from tests.clusters.hosts import Host, Network, made_host, made_network
from tests.clusters.ssh_server import client
from tests.processes import eventually

pytestmark = pytest.mark.xdist_group("ssh")
LOGIN = "ems login there"


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with made_network() as found:
        yield found


@pytest.fixture(scope="module")
def shared(net: Network) -> Host:
    return made_host(net)


@pytest.fixture
def host(shared: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("PATH", client(shared)["PATH"])
    yield shared
    shared.reconnect()
    shared.delay(0)
    shared.trust()
    Connection(shared.name, LOGIN, unattended=True).log_out()


@pytest.fixture
def there(host: Host) -> Connection:
    return Connection(host.name, LOGIN, unattended=True)


# What a host is


def test_a_restart_keeps_the_disk_and_nothing_else(host):
    host.run("echo kept > kept; echo gone > /tmp/gone; nohup sleep 600 > /dev/null 2>&1 &", host.user)
    eventually(lambda: [process.name() for process in host.running()] == ["sleep"])
    host.reboot()
    assert host.run("cat ~/kept; ls /tmp", host.user) == "kept\n"
    assert host.running() == []
    assert not Path("/home", host.user).exists()


def test_hosts_reach_one_another_and_nothing_of_them_stays():
    with made_network() as found:
        first, second = made_host(found), made_host(found)
        second.run(f"bash -c 'exec 3<>/dev/tcp/{first.address}/22 && head -c 7 <&3'")
        names = {found.name, first.name, second.name}
    said = [subprocess.run(words, capture_output=True, text=True, check=True).stdout for words in
            (["ip", "link"], ["ip", "netns"], ["mount"])]  # fmt: skip
    assert not any(name in text for name in names for text in said)
    assert not found.folder.exists()


def test_the_clock_is_wrong_there_alone(host):
    host.set_clock(3600)
    try:
        for told in (host.run("date +%s"), host.run("python3 -c 'import time; print(time.time())'")):
            assert abs(float(told) - time.time() - 3600) < 60
    finally:
        host.set_clock(0)
    assert abs(int(host.run("date +%s")) - time.time()) < 60


# The connection


def test_a_cut_is_told_within_the_time_and_what_comes_after_it_goes_on(host, there):
    assert there.run("echo 1").out == b"1\n"
    host.cut()
    began = time.monotonic()
    with pytest.raises(Unreachable, match=f"{host.name} did not answer within 1 s"):
        there.run("echo 2", timeout_s=1)
    assert time.monotonic() - began < 1 + openssh.SLACK_S + 2
    host.reconnect()
    assert there.run("echo 3").out == b"3\n"


def test_what_a_restart_cut_off_is_repeated_if_it_may_be(host, there):
    script = "[ -e began ] && { echo again; exit; }; touch began; sleep 60"
    with ThreadPoolExecutor(1) as others:
        cut = others.submit(there.run, script, repeats=True)
        eventually(lambda: "began" in host.run(f"ls {host.home}"))
        host.reboot()
        assert cut.result().out == b"again\n"


def test_a_key_that_changes_is_refused_until_a_person_knows_it(host, there):
    assert there.run("true").code == 0
    host.make_host_key()
    assert there.run("true").code == 0  # of the same connection
    host.reboot()
    known = host.folder / "known_hosts"
    before = known.read_text()
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            there.run("touch accepted", repeats=True)
        assert caught.value.message.startswith(f"The host key of {host.name} has changed")
        assert f"ssh-keygen -R {host.address}, then {LOGIN}" in caught.value.hint
    assert known.read_text() == before
    assert "accepted" not in host.run(f"ls {host.home}")
    host.trust()
    assert there.run("true").code == 0


def test_a_server_that_has_answered_is_waited_for_and_another_one_is_not(host, there):
    reached = Reached(host.name, unattended=True, is_here=False, work_dir="ems", environments_dir="")
    site, other = Site(reached, LOGIN), Site(reached, LOGIN)
    assert site.about.cores
    there.log_out()  # what holds the connection would notice after half a minute
    host.halt()
    said: list[str] = []
    with ThreadPoolExecutor(1) as others:
        made = others.submit(site.patiently, site.make_folder, said.append)
        eventually(lambda: said)
        with pytest.raises(Unreachable, match=f"{host.name} is not reached"):
            other.patiently(other.make_folder, said.append)
        host.start()
        made.result()
    assert len(said) == 1 and said[0].startswith(f"waiting for a connection: {host.name} is not reached")
    assert "ems" in host.run(f"ls {host.home}")


@pytest.mark.parametrize(
    ("text", "ends"), [("#KillUserProcesses=yes", False), ("[Login]\nKillUserProcesses = yes", True)]
)
def test_a_server_that_ends_all_at_logout_is_known(host, text, ends):
    host.put("/etc/systemd/logind.conf", f"{text}\n".encode())
    assert server.Site(wanted({"host": host.name}), LOGIN).ends_at_logout() is ends


def test_a_slow_network_takes_one_round_trip_or_two_for_a_command(host, there):
    there.run("true")
    host.delay(0.2)
    began = time.monotonic()
    for number in range(5):
        assert there.run("cat", b"%d" % number).out == b"%d" % number
    assert (time.monotonic() - began) / 5 < 1.2
