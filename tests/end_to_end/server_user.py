"""Somebody whose lab has a server, a database on a PostgreSQL server and a store in S3."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.request import Request, urlopen

import psutil
import pytest
import yaml

from ems.cli import scaffold
from ems.clusters.openssh import Host
from ems.engine import install as engine
from tests.clusters.slurm_server import environments
from tests.clusters.ssh_server import client
from tests.databases.servers import PostgresqlServer
from tests.end_to_end.slurm_user import ROOT, SlurmUser, experiment_file, use_database
from tests.moto_server import log_in

SLOW = """
import time
def f(n):
    time.sleep(0.05)
    return {"value": n}
"""


class Machine(Protocol):
    """With sshd, and a user whose home folder is `home`. As `SshServer` and `hosts.Host`."""

    name: str
    home: Path

    @property
    def bin(self) -> Path: ...
    def write(self, name: str, text: str) -> None: ...
    def running(self) -> list[psutil.Process]: ...
    def kill_all(self) -> None: ...


class ServerUser(SlurmUser):
    """Their server is the stack `blade`."""

    ssh: Machine

    def place(self, **settings: Any) -> None:
        named = {"kind": "server", "host": self.ssh.name, "environments_dir": environments()["environments_dir"]}
        self.write("stacks/Pulumi.blade.yaml", yaml.safe_dump({"config": {"ems:cluster": {**named, **settings}}}))
        self.commit("A place")

    def describe(self, stack: str, job: dict[str, Any], **more: Any) -> None:
        self.write(f"stacks/Pulumi.{stack}.yaml", experiment_file(job, **{"cluster": {"stack": "blade"}, **more}))


Somebody = TypeVar("Somebody", bound=ServerUser)


@contextmanager
def at_work(
    folder: Path,
    ssh: Machine,
    server: PostgresqlServer,
    moto: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    address: str = "127.0.0.1",
    kind: type[Somebody] = ServerUser,
) -> Iterator[Somebody]:
    """Somebody with a new lab in `folder`. `address`: of `server`, from everywhere."""
    engine.ensure()
    monkeypatch.setenv("PATH", client(ssh)["PATH"])
    log_in(folder, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    urlopen(Request(f"{moto}/lab-store", method="PUT")).close()
    ssh.write(".aws/credentials", (folder / "credentials").read_text().replace("[lab]", "[default]"))
    ssh.write(".aws/config", f"[default]\nendpoint_url = {moto}\nregion = us-east-1\n")
    scaffold.init(folder / "lab", "lab")
    shutil.copytree(ROOT / "environments/svd", folder / "lab/environments/svd")
    with server.database() as name:
        somebody = kind(folder / "lab")
        somebody.ssh, somebody.server, somebody.database = ssh, server, name
        use_database(somebody.root, server.url(name, host=address))
        project = yaml.safe_load((somebody.root / "Pulumi.yaml").read_text())
        project["config"]["ems:store"] = {"value": "s3://lab-store/files"}
        (somebody.root / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        somebody.place()
        yield somebody
        somebody.end()
    ssh.kill_all()
    Host(ssh.name, "", unattended=True).log_out()


def begin_sweep(user: ServerUser, points: int) -> subprocess.Popen[str]:
    """Returns once it has stored some."""
    user.write("experiments/e/sweep.py", SLOW)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, points, 1]}}})
    user.commit("A sweep")
    user.ems("up", "lab", "blade")
    running = user.start("up", "s")
    user.wait(lambda: user.stored() > 20)
    return running
