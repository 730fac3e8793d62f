"""A real sshd for tests, on loopback, as root on Linux, with a user of its own.

Debian needs openssh-server and libpam-google-authenticator.

`key`: lets in whoever has the key, as a lab's server does. `factors`: refuses keys, and asks for a password and a
second answer, as Sherlock does.
"""

from __future__ import annotations

import base64
import hmac
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil

from tests.clusters.slurm_server import GROUP, make_users
from tests.databases.servers import free_port
from tests.processes import alive, eventually

PASSWORD = "a password"
SECRET = base64.b32encode(b"of the second factor").decode()
SSHD = "/usr/sbin/sshd"
CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
PermitRootLogin no
PasswordAuthentication no
AllowUsers {user}
UseDNS no
MaxStartups 200
Banner {folder}/banner
Subsystem sftp internal-sftp
SetEnv EMS_LEASES={folder}/leases
"""
KEY = "UsePAM no\nKbdInteractiveAuthentication no\nMaxSessions 2\n"
FACTORS = "UsePAM yes\nPubkeyAuthentication no\nKbdInteractiveAuthentication yes\nMaxSessions 2\n"
PAM = """\
auth requisite pam_unix.so
auth requisite pam_google_authenticator.so user=root secret={folder}/factor [authtok_prompt=Passcode or option: ]
account required pam_permit.so
session required pam_permit.so
"""
CLIENT = """\
Host {name}
    HostName {address}
    Port {port}
    User {user}
    IdentityFile {folder}/key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
"""


class SshServer:
    """One sshd, whose host has the name `name` for the `ssh` that `client` puts on the PATH."""

    def __init__(self, folder: Path, factors: bool = False) -> None:
        self.folder, self.port, self.name = folder, free_port(), f"ems-test-{folder.name}"
        self.user, self.home = f"ems-{folder.name[-8:]}", folder / "a home"
        self._program = SSHD
        self._make_user()
        self.make_host_key()
        make_key(folder / "key")
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        (folder / "leases").mkdir()
        (folder / "leases").chmod(0o1777)
        (folder / "banner").write_text("Only for members of the lab.\n")
        own = FACTORS if factors else KEY
        (folder / "sshd_config").write_text(CONFIG.format(folder=folder, port=self.port, user=self.user) + own)
        make_client(folder, self.name, "127.0.0.1", self.port, self.user)
        if factors:
            self._ask_by_pam()
        for path in (folder, *folder.iterdir()):
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0))
        self.start()

    @property
    def bin(self) -> Path:
        """The folder whose `ssh` reads this server's configuration, as the user's own would be."""
        return self.folder / "bin"

    @property
    def attempts(self) -> int:
        """How many connections it has been asked for."""
        return (self.folder / "sshd.log").read_text(errors="replace").count("Connection from ")

    def trust(self) -> None:
        """Have the client know the key of the host."""
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def make_host_key(self) -> None:
        """A new one, which the client trusts if it knows none yet."""
        for name in ("host_key", "host_key.pub"):
            (self.folder / name).unlink(missing_ok=True)
        make_key(self.folder / "host_key")
        if not (self.folder / "known_hosts").exists():
            self.trust()

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        log = str(self.folder / "sshd.log")
        subprocess.run(
            [self._program, "-f", str(self.folder / "sshd_config"), "-E", log, "-o", "LogLevel=VERBOSE"], check=True
        )
        eventually(self._pid_file.exists)

    def end(self) -> None:
        """The listener alone, or all that it has let in."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            psutil.Process(int(self._pid_file.read_text())).kill()
        self._pid_file.unlink(missing_ok=True)

    def cut(self) -> None:
        """End all connections at once, with what they serve."""
        for process in self._connections():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def freeze(self, frozen: bool = True) -> None:
        """Have the listener and all connections say nothing, as a network that is gone; or speak again."""
        for process in [psutil.Process(int(self._pid_file.read_text())), *self._connections()]:
            process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def write(self, name: str, text: str) -> None:
        """A file of the user, in a folder of its own in the home folder."""
        file = self.home / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    def use_shell(self, shell: str) -> None:
        subprocess.run(["usermod", "-s", shell, self.user], check=True)

    def use_path(self, folder: Path | None) -> None:
        """Have shells look for programs in this folder alone, or as always."""
        config = self.folder / "sshd_config"
        begin = f"SetEnv EMS_LEASES={self.folder}/leases"
        lines = [line for line in config.read_text().splitlines() if not line.startswith("SetEnv ")]
        config.write_text("\n".join([*lines, begin + (f" PATH={folder}" if folder else ""), ""]))
        self.end()
        self.start()

    def running(self) -> list[psutil.Process]:
        """What runs there as the user, but for connections."""
        found = []
        for process in psutil.process_iter(["username", "name"]):
            is_connection = process.info["name"].startswith(("sshd", "ems-sshd"))
            if process.info["username"] == self.user and not is_connection and alive(process.pid):
                found.append(process)
        return found

    def kill_all(self) -> None:
        """What runs there as the user."""
        for process in self.running():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _make_user(self) -> None:
        """Whose home has a space in its name, in the group that shares the environments of tests."""
        make_users()
        options = ("-m", "-d", str(self.home), "-s", "/bin/bash", "-p", "*", "-G", GROUP)
        subprocess.run(["useradd", *options, self.user], check=True)

    def remove_user(self) -> None:
        self.kill_all()
        eventually(lambda: not self.running())
        subprocess.run(["userdel", "-r", "-f", self.user], check=True, stderr=subprocess.DEVNULL)

    def _connections(self) -> Sequence[psutil.Process]:
        by = psutil.Process(int(self._pid_file.read_text()))
        return [each for each in by.children(recursive=True) if each.name().startswith(("sshd", "ems-sshd"))]

    @property
    def _pid_file(self) -> Path:
        return self.folder / "sshd.pid"

    def _ask_by_pam(self) -> None:
        """The service of PAM has the name of the program."""
        self._program = str(self.folder / "ems-sshd")
        shutil.copy(SSHD, self._program)
        factor = self.folder / "factor"
        factor.write_text(f'{SECRET}\n" TOTP_AUTH\n')
        factor.chmod(0o400)
        Path("/etc/pam.d/ems-sshd").write_text(PAM.format(folder=self.folder))
        subprocess.run(["chpasswd"], input=f"{self.user}:{PASSWORD}", text=True, check=True)


def make_key(file: Path) -> None:
    """Without a passphrase; the public half lies beside it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)


def make_client(folder: Path, name: str, address: str, port: int, user: str) -> None:
    """Have `bin/ssh` in `folder`, which knows a host by its name, and uses the files `key` and `known_hosts` there."""
    said = CLIENT.format(folder=folder, name=name, address=address, port=port, user=user)
    (folder / "config").write_text(said)
    (folder / "bin").mkdir()
    real = shutil.which("ssh")
    (folder / "bin/ssh").write_text(f'#!/bin/sh\nexec {real} -F {shlex.quote(str(folder / "config"))} "$@"\n')
    (folder / "bin/ssh").chmod(0o755)


def passcode() -> str:
    """The second factor of this half minute, as a phone shows it (RFC 6238)."""
    counter = int(time.time() // 30).to_bytes(8, "big")
    mac = hmac.digest(base64.b32decode(SECRET), counter, "sha1")
    at = mac[-1] & 15
    return f"{(int.from_bytes(mac[at : at + 4], 'big') & 0x7FFFFFFF) % 10**6:06}"


@contextmanager
def started(*, factors: bool = False) -> Iterator[SshServer]:
    """A server in a folder of its own, with a user of its own."""
    folder = Path(tempfile.mkdtemp(prefix="ems-ssh-", dir="/tmp"))
    folder.chmod(0o755)
    server = SshServer(folder, factors)
    try:
        yield server
    finally:
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            server.cut()
        server.end()
        server.remove_user()
        shutil.rmtree(folder, ignore_errors=True)


class Known(Protocol):
    """What `ssh` knows if `bin` is on the PATH."""

    @property
    def bin(self) -> Path: ...


def client(server: Known) -> dict[str, str]:
    """The variables with which `ssh` reads the configuration of this server."""
    return {"PATH": f"{server.bin}:{os.environ['PATH']}"}
