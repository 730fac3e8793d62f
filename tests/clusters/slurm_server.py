"""A real Slurm for tests, on this machine: munge, accounting in MariaDB, nodes that declare CPUs and GPUs.

All of it lies in one folder, and listens on loopback alone. Debian needs slurm-wlm, munge, slurmdbd, mariadb-server.
"""

from __future__ import annotations

import atexit
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import psutil
import pytest
from uv import find_uv_bin

from ems.base.process import uv
from ems.clusters import shipping
from ems.node.environments import scratch
from ems.node.environments.recipe import Order, Recipe
from tests.databases.servers import free_port
from tests.processes import PATIENCE_S, having

CLUSTER, ACCOUNTS = "emstest", ("grant", "other")
USERS = ("ems-tester", "ems-colleague")  # without rights, in one group
GROUP = "ems-testers"
NODES, CPUS, MEMORY_MB = 3, 8, 16_000
GPUS = 2  # of the first node

SLURM_CONF = """\
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket/s
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={folder}/munge.socket/s
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=100000,requeue_delay=2
ReturnToService=2
MpiDefault=none
DefMemPerCPU=500
SwitchType=switch/none
KillWait=3
MinJobAge=600
InactiveLimit=0
SlurmctldTimeout=60
SlurmdTimeout=60
OverTimeLimit=0
MailProg=/bin/true
TaskProlog={folder}/prolog
{nodes}
PartitionName=normal Nodes=ALL Default=YES DefaultTime=120 MaxTime=2880 PriorityTier=10 PreemptMode=off State=UP
PartitionName=owners Nodes=ALL DefaultTime=120 MaxTime=2880 PriorityTier=1 PreemptMode=requeue State=UP
PartitionName=group Nodes=ALL DefaultTime=120 MaxTime=10080 PriorityTier=100 PreemptMode=off State=UP
PartitionName=service Nodes={first} MaxTime=10080 PriorityTier=10 OverSubscribe=FORCE:8 PreemptMode=off State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 SocketsPerBoard=1 "
    "CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory_mb} State=UNKNOWN{gres}"
)
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket/s
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounting_port}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""


def make_users() -> None:
    """Those who have no rights; as root."""
    subprocess.run(["groupadd", "-f", GROUP], check=True)
    for user in USERS:
        with suppress(KeyError):
            pwd.getpwnam(user)
            continue
        subprocess.run(["useradd", "-m", "-g", GROUP, "-s", "/bin/bash", user], check=True)


@cache
def environments() -> dict[str, str]:
    """Settings of a place: the folders where the environments of all tests of this process are, for USERS too.

    EMS's own is there already: to build it takes longer than a test waits for anything, where a machine is busy.
    """
    below = Path(tempfile.mkdtemp(prefix="ems-environments-", dir="/tmp"))
    atexit.register(subprocess.run, ["rm", "-rf", below], check=False)
    below.chmod(0o755)
    make_users()
    for name, mode in (("archives", 0o2775), ("scratch", 0o1777)):
        (below / name).mkdir()
        shutil.chown(below / name, group=GROUP)
        (below / name).chmod(mode)
    settings = {"environments_dir": str(below / "archives"), "local_scratch": str(below / "scratch")}
    build(shipping.own(), settings)
    return settings


def build(recipe: Recipe, settings: dict[str, str]) -> None:
    """Have the archive of an environment in the folder of these settings."""
    cache = {"UV_CACHE_DIR": uv("cache", "dir").strip()}
    folders = (settings["environments_dir"], settings["local_scratch"])
    scratch.unpacked(recipe, Order(recipe, recipe, *folders, "", find_uv_bin(), cache), print)


@dataclass(frozen=True)
class SlurmServer:
    """A cluster of its own in `folder`; `ports`: of slurmctld, of slurmdbd, of MariaDB, then of each node."""

    folder: Path
    ports: tuple[int, ...]

    @classmethod
    def make(cls) -> SlurmServer:
        """A new one, started."""
        folder = Path(tempfile.mkdtemp(prefix="ems-slurm-", dir="/tmp"))
        folder.chmod(0o755)
        server = cls(folder, tuple(free_port() for _ in range(3 + NODES)))
        server._configure()
        make_users()
        server._start_accounting()
        server.start()
        return server

    @property
    def names(self) -> list[str]:
        """Of the nodes."""
        return [f"n{number}" for number in range(1, 1 + NODES)]

    @property
    def variables(self) -> dict[str, str]:
        """With which Slurm's commands find it, and jobs what `uv` has fetched before."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "UV_CACHE_DIR": uv("cache", "dir").strip()}

    def run(self, *words: str) -> str:
        """What a command prints; it must succeed."""
        done = self.tried(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def tried(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command, in the server's folder, so that what jobs print goes with it."""
        return subprocess.run(
            words, env={**os.environ, **self.variables}, cwd=self.folder,
            text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start_soon(self, id: str) -> None:
        """Have a job that was queued again start without the usual two minutes.

        Within the second in which it was ended, its node would refuse it: "already killed, do not launch".
        """
        begins = re.search(r" StartTime=(\d\S+)", self.tried("scontrol", "show", "job", "-o", id).stdout)
        if begins and datetime.fromisoformat(begins[1]) > datetime.now() + timedelta(seconds=5):
            self.tried("scontrol", "update", f"jobid={id}", "starttime=now+2seconds")

    def start(self) -> None:
        """The controller and all nodes; returns when they are idle."""
        self.run("slurmctld", "-c")
        for name in self.names:
            self.start_node(name)
        self._wait(
            lambda: self.run("sinfo", "-h", "-N", "-p", "normal", "-o", "%T").split() == ["idle"] * len(self.names)
        )

    def start_node(self, name: str) -> None:
        self.run("slurmd", "-N", name)

    def kill_node(self, name: str) -> None:
        """At once, as when a machine loses its power: also what it ran."""
        slurmd = psutil.Process(self.pid(f"slurmd.{name}"))
        for process in [slurmd, *_of(f"{self.folder}/spool/{name}/")]:
            with suppress(psutil.NoSuchProcess):
                for child in [*process.children(recursive=True), process]:
                    child.kill()

    def kill(self, daemon: str) -> None:
        """slurmctld or slurmdbd, at once."""
        psutil.Process(self.pid(daemon)).kill()

    def pid(self, daemon: str) -> int:
        return int((self.folder / f"{daemon}.pid").read_text())

    def start_slurmdbd(self) -> None:
        self.run("slurmdbd")
        self._wait(lambda: self.tried("sacctmgr", "-n", "show", "cluster").returncode == 0)

    def end(self) -> None:
        """Cancels what runs, and stops all daemons."""
        self.tried("scancel", "--full", *[word for user in USERS for word in ("-u", user)])
        daemons = [f"slurmd.{name}" for name in self.names] + ["slurmctld", "slurmdbd", "mariadb", "munge"]
        for daemon in daemons:
            with suppress(psutil.NoSuchProcess, FileNotFoundError):
                process = psutil.Process(self.pid(daemon))
                if process.name().startswith(daemon.partition(".")[0]):  # its number may be another's by now
                    process.kill()
        for process in [*_of(str(self.folder)), *self.steps()]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def steps(self) -> list[psutil.Process]:
        """What looks after the jobs of this cluster, `slurmstepd: [JOB.STEP]`: others have jobs of the same number."""
        found = []
        for process in having("slurmstepd: [", psutil.process_iter()):
            with suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(self.folder):
                    found.append(process)
        return found

    def _configure(self) -> None:
        for name in (
            "state",
            "spool",
            "log",
            "munge",
            "munge.socket",
            "storage",
            *(f"spool/{node}" for node in self.names),
        ):
            (self.folder / name).mkdir(mode=0o755)
        (self.folder / "munge").chmod(0o700)
        (self.folder / "prolog").write_text("#!/bin/sh\nexit 0\n")
        (self.folder / "prolog").chmod(0o755)
        for number in range(GPUS):
            os.mknod(self.folder / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null
        (self.folder / "gres.conf").write_text(
            f"NodeName=n1 Name=gpu File={self.folder}/gpu[0-{GPUS - 1}] Flags=nvidia_gpu_env\n"
        )
        host = socket.gethostname().partition(".")[0]
        words = {
            "cluster": CLUSTER, "host": host, "folder": self.folder, "port": self.ports[0],
            "accounting_port": self.ports[1], "storage_port": self.ports[2], "first": self.names[0],
        }  # fmt: skip
        nodes = [
            NODE.format(
                name=name, host=host, port=port, cpus=CPUS, memory_mb=MEMORY_MB,
                gres=f" Gres=gpu:{GPUS}" if name == "n1" else "",
            )
            for name, port in zip(self.names, self.ports[3:], strict=True)
        ]  # fmt: skip
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**words, nodes="\n".join(nodes)))
        (self.folder / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(**words))
        (self.folder / "slurmdbd.conf").chmod(0o600)

    def _start_accounting(self) -> None:
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o600)
        files = [f"--{what}-file={munge / what}" for what in ("key", "log", "seed")]
        pid = f"--pid-file={self.folder / 'munge.pid'}"
        self.run("munged", *files, pid, f"--socket={self.folder}/munge.socket/s", "--num-threads=2")
        self._start_storage()
        self.start_slurmdbd()
        sacctmgr = ("sacctmgr", "-iQ")
        self.run(*sacctmgr, "add", "cluster", CLUSTER)
        for account in ACCOUNTS:
            self.run(*sacctmgr, "add", "account", account)
        self.run(*sacctmgr, "add", "user", "root", f"account={ACCOUNTS[0]}")
        for user in USERS:
            self.run(*sacctmgr, "add", "user", user, f"account={ACCOUNTS[0]}")

    def _start_storage(self) -> None:
        data, own = self.folder / "storage/data", ("--no-defaults", f"--datadir={self.folder}/storage/data")
        self.run(
            "mariadb-install-db", *own, "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"
        )
        at = (f"--socket={self.folder}/storage/s", f"--port={self.ports[2]}", "--bind-address=127.0.0.1")
        with (self.folder / "log/mariadb.log").open("wb") as log:
            subprocess.Popen(
                ["mariadbd", *own, *at, f"--pid-file={self.folder}/mariadb.pid", "--user=root", "--skip-name-resolve",
                 "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        sql = (
            "CREATE DATABASE slurm_acct; CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm'; "
            "GRANT ALL ON slurm_acct.* TO slurm@'127.0.0.1';"
        )
        client = ("mariadb", "--no-defaults", at[0], "-u", "root", "-e", sql)
        self._wait(lambda: self.tried(*client).returncode == 0)
        assert data.exists()

    def _wait(self, condition: Callable[[], object]) -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up_at, f"Slurm did not start: see {self.folder}/log"
            time.sleep(0.1)


def _of(word: str) -> Sequence[psutil.Process]:
    return [process for process in psutil.process_iter() if word in _command_line(process)]


def _command_line(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@contextmanager
def started() -> Iterator[SlurmServer]:
    server = SlurmServer.make()
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmServer]:
    with started() as server:
        yield server


def lying(name: str, text: str) -> str:
    """The script of a command of Slurm's that lies; REAL in it is the true one."""
    return f"#!/bin/sh\n{text.replace('REAL', str(shutil.which(name)))}\n"


def faked(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> Path:
    """Put a command that lies before the true one, also for jobs that are submitted from now on; its file."""
    file = folder / "fake" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(lying(name, text))
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")
    return file
