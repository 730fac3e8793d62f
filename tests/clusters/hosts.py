"""Machines for tests, as real as they can be without being others: namespaces of Linux, each with its own network
interface, root, processes and sshd. So a cut, a slow network, a restart and a wrong clock are what they are elsewhere.

A host sees the files of this machine and writes to a disk of its own, which a restart keeps; /tmp and /run are new with
each. Nothing of it is seen from outside, but for the processes. As root on Linux, with iproute2 and openssh-server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from string import ascii_lowercase

import psutil

from tests.clusters.clock import make_clock
from tests.clusters.slurm_server import GROUP, make_users
from tests.clusters.ssh_server import SSHD, make_client, make_key
from tests.clusters.wire import Wire
from tests.processes import alive, eventually

LETTERS = iter(ascii_lowercase)  # one for each network of this process
USER, UID = "member", 61_000  # a number that nobody has here
BOOT = """\
set -e
mount --make-rprivate /
mkdir -p $DISK/upper $DISK/work $DISK/root
mount -t overlay overlay -o lowerdir=/,upperdir=$DISK/upper,workdir=$DISK/work $DISK/root
cd $DISK/root
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs tmpfs run
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
for folder in $SHARED; do
    mkdir -p .$folder
    mount --bind $folder .$folder
done
hostname $NAME
mkdir -p run/sshd old
pivot_root . old
umount -l /old
exec </dev/null >>/var/log/boot.log 2>&1
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


class Host:
    """One machine with the user USER, which `ssh` knows by its name where `bin` is on the PATH."""

    def __init__(self, network: Network, number: int, shared: Sequence[Path]) -> None:
        """`shared`: folders of this machine that are the host's too, as on a file server."""
        self.name = f"{network.name}-{number}"
        self.address = f"{network.prefix}.{number + 10}"
        self.folder = network.folder / self.name
        self.user, self.home = USER, Path("/home", USER)
        self._shared = shared
        (self.folder / "disk").mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "ems", str(self.folder / "disk"))
        make_key(self.folder / "key")
        make_client(self.folder, self.name, self.address, 22, USER)
        self._bridge, self._wire, self._delay_s = network.name, None, 0.0
        try:
            self.start()
            self.trust()
        except BaseException:
            self.end()
            raise

    def _connect(self) -> None:
        here, there = f"{self.name}a", f"{self.name}b"
        self._wire = Wire(here, there, self._delay_s)
        _run("ip", "link", "set", here, "master", self._bridge, "up")
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "set", there, "netns", self.name)
        for words in (("addr", "add", f"{self.address}/24", "dev", there), ("link", "set", there, "up")):
            _run("ip", "-n", self.name, *words)
        _run("ip", "-n", self.name, "link", "set", "lo", "up")

    def write(self, name: str, text: str) -> None:
        """A file of the user, in a folder of its own in the home folder."""
        self.put(str(self.home / name), text.encode(), USER)

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    # On and off

    def start(self) -> None:
        self._connect()
        variables = {
            "NAME": self.name, "DISK": str(self.folder / "disk"), "SHARED": " ".join(map(str, self._shared)),
            "KEY": (self.folder / "key.pub").read_text().strip(), "GROUP": GROUP, "MEMBER": USER, "USER_ID": str(UID),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }  # fmt: skip
        own = ("unshare", "-m", "-p", "-f", "-u", "-i", "--kill-child=SIGKILL")
        command = ("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name, *own, "sh", "-c", BOOT)
        with (self.folder / "console.log").open("ab") as log:
            self._boots = subprocess.Popen(command, env=variables, start_new_session=True, stdout=log, stderr=log)
        eventually(lambda: self._boots.poll() is not None or self._listens())
        assert self._boots.poll() is None, "the host does not start"

    def _listens(self) -> bool:
        command = ["ip", "netns", "exec", self.name, "ss", "-Hltn", "sport = 22"]
        found = subprocess.run(command, capture_output=True, check=False)
        return bool(found.stdout)

    def halt(self) -> None:
        """At once, as without power: no process and no connection says a word."""
        inits = psutil.Process(self._boots.pid).children()
        self.cut()
        for process in inits:
            process.kill()
        self._boots.wait()
        eventually(lambda: not any(alive(process.pid) for process in inits))
        self._disconnect()

    def _disconnect(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False)  # with what its kernel knew of connections
        if self._wire:
            self._wire.end()
        self._wire = None

    def reboot(self) -> None:
        """With the same disk, after a moment without power."""
        self.halt()
        self.start()

    @property
    def init(self) -> psutil.Process:
        """Its first process, as it is seen from here."""
        (found,) = psutil.Process(self._boots.pid).children()
        return found

    # The network

    def cut(self, is_cut: bool = True) -> None:
        """Nothing comes or goes any more, and nobody is told; or it does again."""
        assert self._wire
        self._wire.is_cut = is_cut

    def reconnect(self) -> None:
        self.cut(False)

    def hang_up(self) -> None:
        """End all connections, with what they serve."""
        for process in self.init.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name() == "sshd":
                    process.kill()

    def delay(self, there_and_back_s: float) -> None:
        assert self._wire
        self._delay_s = self._wire.delay_s = there_and_back_s / 2

    # Commands there

    def run(self, script: str, user: str = "root", given: Path = Path(os.devnull)) -> str:
        """What a script of `sh` says there, which must succeed."""
        enter = ("nsenter", "-t", str(self.init.pid), "-m", "-p", "-u", "-n", "-i", "-r", "-w")
        command = (*enter, "su", "-", user, "-s", "/bin/sh", "-c", script)
        with given.open("rb") as file:
            done = subprocess.run(command, capture_output=True, text=True, stdin=file, check=False)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

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

    def put(self, file: str, content: bytes, user: str = "root") -> None:
        """A file there."""
        given = self.folder / "given"
        given.write_bytes(content)
        self.run(f"mkdir -p {PurePosixPath(file).parent}; cat > {file}; chmod 755 {file}", user, given)

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

    def end(self) -> None:
        """Nothing of it is left."""
        with suppress(psutil.NoSuchProcess):
            self.halt()
        if self._wire:
            self._disconnect()
        subprocess.run(["umount", "--lazy", self.folder / "disk"], check=False)


class Network:
    """A bridge of this machine, which has the address `address` on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"ems{os.getpid():x}{next(LETTERS)}"
        self.prefix = next(prefix for prefix in _prefixes() if not _is_routed(prefix))
        self.address = f"{self.prefix}.1"
        self.hosts: list[Host] = []
        _run("ip", "link", "add", self.name, "type", "bridge")
        _run("ip", "addr", "add", f"{self.address}/24", "dev", self.name)
        _run("ip", "link", "set", self.name, "up")

    def host(self, *shared: Path) -> Host:
        """A new one, started."""
        make_users()
        self.hosts.append(Host(self, len(self.hosts), shared))
        return self.hosts[-1]

    def end(self) -> None:
        for host in self.hosts:
            host.end()
        subprocess.run(["ip", "link", "del", self.name], check=False)


def _prefixes() -> Iterator[str]:
    """Of private networks of 256 addresses, those of other processes last."""
    for more in range(256):
        number = os.getpid() + more
        yield f"10.{200 + number // 256 % 50}.{number % 256}"


def _is_routed(prefix: str) -> bool:
    said = subprocess.run(["ip", "route", "show", "match", f"{prefix}.1"], capture_output=True, text=True, check=True)
    return any(not line.startswith("default") for line in said.stdout.splitlines())


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


@contextmanager
def made_network() -> Iterator[Network]:
    """One without hosts yet; all are gone in the end."""
    assert os.geteuid() == 0, "Only root can make hosts of namespaces."
    _remove_what_killed_processes_left()
    folder = Path(tempfile.mkdtemp(prefix=f"ems-hosts-{os.getpid()}-", dir="/tmp"))
    folder.chmod(0o755)
    found = Network(folder)
    try:
        yield found
    finally:
        found.end()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_what_killed_processes_left() -> None:
    for folder in Path("/tmp").glob("ems-hosts-*-*"):
        if not psutil.pid_exists(int(folder.name.split("-")[2])):
            for disk in folder.glob("*/disk"):
                subprocess.run(["umount", "--lazy", disk], check=False)
                subprocess.run(["ip", "netns", "del", disk.parent.name], check=False)
                subprocess.run(["ip", "link", "del", disk.parent.name.partition("-")[0]], check=False)
            shutil.rmtree(folder, ignore_errors=True)
