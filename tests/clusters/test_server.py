"""A lab's server, for real: sshd, a user of its own with a space in the home's name, PostgreSQL."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ems.clusters.openssh import Host
from ems.clusters.server.place import SENT, Server
from ems.databases import ClusterRow, Experiment
from ems.lab import Lab
from ems.node.agent.config import AgentConfig
from tests.clusters.slurm_server import environments
from tests.clusters.ssh_server import SshServer, client, started
from tests.databases.servers import PostgresqlServer
from tests.place_contract import PlaceContract

pytestmark = pytest.mark.xdist_group("ssh")


@pytest.fixture(scope="module")
def shared() -> Iterator[SshServer]:
    with started() as server:
        yield server


class TestServer(PlaceContract):
    @pytest.fixture
    def here(self, here: Lab, postgresql_server: PostgresqlServer) -> Iterator[Lab]:
        with postgresql_server.database() as name:
            yield dataclasses.replace(here, database_url=postgresql_server.url(name))

    @pytest.fixture
    def server(self, shared: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
        monkeypatch.setenv("PATH", client(shared)["PATH"])
        yield shared
        shared.kill_all()
        Host(shared.name, "", unattended=True).log_out()
        shutil.rmtree(shared.home / "ems", ignore_errors=True)

    @pytest.fixture
    def place(self, here: Lab, server: SshServer) -> Server:
        settings = {"host": server.name, "environments_dir": environments()["environments_dir"]}
        with here.database() as database:
            database.create()
            database.upsert(ClusterRow("laptop", "server", json.dumps(settings)))
        return Server()

    def there(self, here: Lab, experiment: Experiment) -> Path:
        return Path((here.run_dir(experiment.id) / SENT).read_text())

    def kill(self, lab: Lab, experiment: Experiment) -> None:
        pid = int((self.there(lab, experiment) / "boot.lock").read_text())
        os.kill(pid, signal.SIGKILL)

    spoilt = "spool-5"

    def spoil(self, lab: Lab, experiment: Experiment) -> None:
        for attempt in range(1, 6):
            (self.there(lab, experiment) / f"spool-{attempt}").write_text("a file where a folder must be")

    def beat_seldom(self, lab: Lab, experiment: Experiment) -> None:
        run_dir = self.there(lab, experiment)
        dataclasses.replace(AgentConfig.read(run_dir), beat_s=60.0, lease_s=300.0).write(run_dir)
        subprocess.run(["chown", "-R", run_dir.owner(), run_dir], check=True)
