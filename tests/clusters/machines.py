"""Machines for tests, as real as they can be without being others: namespaces of Linux, each with its own network
interface, root and processes. So a cut, a slow network, a restart and a silent end are what they are elsewhere.

A machine sees the files of this one and writes to a disk of its own, which a restart keeps; /tmp and /run are new with
each. Nothing of it is seen from outside, but for the processes. As root on Linux, with iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from string import ascii_lowercase
from typing import Protocol

import psutil

from tests.clusters.wire import Wire
from tests.processes import alive, eventually

LETTERS = iter(ascii_lowercase)  # one for each network of this process
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
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
for folder in $HIDDEN; do
    mount -t tmpfs tmpfs .$folder
done
for folder in $SHARED; do
    mkdir -p .$folder
    mount --bind $folder .$folder
done
hostname $NAME
mkdir -p run/sshd old
pivot_root . old
umount -l /old
exec </dev/null >>/var/log/boot.log 2>&1
"""


class Member(Protocol):
    """What a network ends with itself."""

    def end(self) -> None: ...


class Machine:
    """One of them. `init_script`: what its first process does, in `sh`, once all is mounted."""

    init_script = "exec sleep infinity\n"
    variables: Mapping[str, str] = {}  # of the first process

    def __init__(self, network: Network, number: int, shared: Sequence[Path], hidden: Sequence[Path] = ()) -> None:
        """`shared`: folders of this machine that are its too, as on a file server; `hidden`: that are empty there."""
        self.name = f"{network.name}-{number}"
        self.address = f"{network.prefix}.{number + 10}"
        self.folder = network.folder / self.name
        self._shared, self._hidden = shared, hidden
        (self.folder / "disk").mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "ems", str(self.folder / "disk"))
        self._bridge, self._wire, self._delay_s = network.name, None, 0.0

    def _connect(self) -> None:
        here, there = f"{self.name}a", f"{self.name}b"
        self._wire = Wire(here, there, self._delay_s)
        _run("ip", "link", "set", here, "master", self._bridge, "up")
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "set", there, "netns", self.name)
        for words in (("addr", "add", f"{self.address}/24", "dev", there), ("link", "set", there, "up")):
            _run("ip", "-n", self.name, *words)
        _run("ip", "-n", self.name, "link", "set", "lo", "up")

    # On and off

    def start(self) -> None:
        self._connect()
        variables = {
            "NAME": self.name,
            "DISK": str(self.folder / "disk"),
            "SHARED": " ".join(map(str, self._shared)),
            "HIDDEN": " ".join(map(str, self._hidden)),
            "PATH": PATH,
            **self.variables,
        }
        own = ("unshare", "-m", "-p", "-f", "-u", "-i", "--kill-child=SIGKILL")
        words = ("ip", "netns", "exec", self.name, *own, "sh", "-c", BOOT + self.init_script)
        with (self.folder / "console.log").open("ab") as log:
            command = ("setpriv", "--pdeathsig", "KILL", *words)
            self._boots = subprocess.Popen(command, env=variables, start_new_session=True, stdout=log, stderr=log)
        eventually(lambda: self._boots.poll() is not None or self._is_up())
        assert self._boots.poll() is None, "the machine does not start"

    def _is_up(self) -> bool:
        return bool(psutil.Process(self._boots.pid).children())

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

    def put(self, file: str, content: bytes, user: str = "root") -> None:
        """A file there."""
        given = self.folder / "given"
        given.write_bytes(content)
        self.run(f"mkdir -p {PurePosixPath(file).parent}; cat > {file}; chmod 755 {file}", user, given)

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
        self.members: list[Member] = []
        _run("ip", "link", "add", self.name, "type", "bridge")
        _run("ip", "addr", "add", f"{self.address}/24", "dev", self.name)
        _run("ip", "link", "set", self.name, "up")

    def end(self) -> None:
        for member in self.members:
            member.end()
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
