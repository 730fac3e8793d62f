"""Machines with sshd and a user, for tests; as `tests.clusters.machines`, with openssh-server."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.clusters.clock import make_clock
from tests.clusters.machines import Machine, Network, made_network
from tests.clusters.slurm_server import GROUP, make_users
from tests.clusters.ssh_server import SSHD, make_client, make_key
from tests.processes import alive, eventually

__all__ = ["Host", "Network", "made_host", "made_network"]
USER, UID = "member", 61_000  # a number that nobody has here


class Host(Machine):
    """One machine with the user USER, which `ssh` knows by its name where `bin` is on the PATH."""

    init_script = """\
if [ ! -e /etc/ssh/of_this_host ]; then
    useradd -m -s /bin/bash -p '*' -u $USER_ID -g $GROUP $MEMBER
    ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/of_this_host
    printf '%s\\n' "$KEY" > /etc/ssh/keys_of_members
    rm -rf /var/tmp/ems-leases
fi
exec SSHD -D -f /dev/null -E /var/log/sshd.log -o LogLevel=VERBOSE -o HostKey=/etc/ssh/of_this_host \\
    -o AuthorizedKeysFile=/etc/ssh/keys_of_members -o StrictModes=no -o PasswordAuthentication=no \\
    -o KbdInteractiveAuthentication=no -o PermitRootLogin=no -o UseDNS=no -o UsePAM=no -o MaxSessions=2
""".replace("SSHD", SSHD)

    def __init__(self, network: Network, number: int, shared: Sequence[Path]) -> None:
        super().__init__(network, number, shared)
        self.user, self.home = USER, Path("/home", USER)
        make_key(self.folder / "key")
        make_client(self.folder, self.name, self.address, 22, USER)
        key = (self.folder / "key.pub").read_text().strip()
        self.variables = {"KEY": key, "GROUP": GROUP, "MEMBER": USER, "USER_ID": str(UID)}
        try:
            self.start()
            self.trust()
        except BaseException:
            self.end()
            raise

    def write(self, name: str, text: str) -> None:
        """A file of the user, in a folder of its own in the home folder."""
        self.put(str(self.home / name), text.encode(), USER)

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    def _is_up(self) -> bool:
        command = ["ip", "netns", "exec", self.name, "ss", "-Hltn", "sport = 22"]
        found = subprocess.run(command, capture_output=True, check=False)
        return bool(found.stdout)

    def hang_up(self) -> None:
        """End all connections, with what they serve."""
        for process in self.init.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name() == "sshd":
                    process.kill()

    def make_host_key(self) -> None:
        """A new one, from the next connection on; the client is not told."""
        key = "/etc/ssh/of_this_host"
        self.run(f"rm {key}; ssh-keygen -q -t ed25519 -N '' -f {key}")
        self._restart_sshd()

    def _restart_sshd(self) -> None:
        """Connections stay."""
        begun = "grep -c 'Server listening' /var/log/sshd.log"
        before = self.run(begun)
        self.run("kill -HUP 1")
        eventually(lambda: self.run(begun) != before)

    def trust(self) -> None:
        """Have the client know the key of the host."""
        kind, key, *_ = self.run("cat /etc/ssh/of_this_host.pub").split()
        (self.folder / "known_hosts").write_text(f"{self.address} {kind} {key}\n")

    def set_clock(self, ahead_s: int) -> None:
        """Have the host's clock be wrong for what starts from now on, but for the times of its files."""
        if not (self.folder / "clock.so").exists():
            self.put("/usr/local/lib/clock.so", make_clock(self.folder).read_bytes())
            self.put("/etc/ld.so.preload", b"/usr/local/lib/clock.so\n")
        self.put("/etc/clock", b"%d\n" % ahead_s)
        self._restart_sshd()

    def sessions(self) -> int:
        """How many commands it has been asked for, ever."""
        return int(self.run("grep -c 'Starting session: command' /var/log/sshd.log || true"))

    def running(self) -> list[psutil.Process]:
        """What runs there as the user, but for connections."""
        found = []
        for process in self.init.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.uids().real == UID and process.name() != "sshd" and alive(process.pid):
                    found.append(process)
        return found

    def kill_all(self) -> None:
        """What runs there as the user."""
        for process in self.running():
            with suppress(psutil.NoSuchProcess):
                process.kill()


def made_host(network: Network, *shared: Path) -> Host:
    """A new one, started, which ends with its network."""
    make_users()
    found = Host(network, len(network.members), shared)
    network.members.append(found)
    return found
