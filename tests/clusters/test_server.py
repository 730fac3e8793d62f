"""A lab's server, for real: sshd, a user of its own with a space in the home's name, PostgreSQL."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from ems.base.errors import EmsError
from ems.clusters import local
from ems.clusters.openssh import Host, NotConnected
from ems.clusters.server.place import Server
from ems.databases import ClusterRow, Experiment, State
from ems.lab import Lab
from ems.node.agent.config import AgentConfig
from ems.node.environments.ready import CODE
from tests.clusters.slurm_server import environments
from tests.clusters.ssh_server import SshServer, client, started
from tests.databases.servers import PostgresqlServer
from tests.place_contract import LONG, ROWS, SentPlaceContract
from tests.processes import alive, eventually

pytestmark = pytest.mark.xdist_group("ssh")


@pytest.fixture(scope="module")
def shared() -> Iterator[SshServer]:
    with started() as server:
        yield server


def describe(here: Lab, server: SshServer, **more: str) -> None:
    """Have the place that `registered` experiments name be this server."""
    settings = {"host": server.name, "environments_dir": environments()["environments_dir"], **more}
    with here.database() as database:
        database.create()
        database.upsert(ClusterRow("laptop", "server", json.dumps(settings)))


class ServerContract(SentPlaceContract):
    """With the lab's database as the lab has it."""

    @pytest.fixture
    def server(self, shared: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
        monkeypatch.setenv("PATH", client(shared)["PATH"])
        yield shared
        shared.kill_all()
        Host(shared.name, "", unattended=True).log_out()
        shutil.rmtree(shared.home / "ems", ignore_errors=True)

    @pytest.fixture
    def place(self, here: Lab, server: SshServer) -> Server:
        describe(here, server)
        return Server()

    def kill(self, lab: Lab, experiment: Experiment) -> None:
        pid = int((self.there(lab, experiment) / "boot.lock").read_text())
        os.kill(pid, signal.SIGKILL)

    drilled: tuple[str, ...] = tuple(
        name for name in LONG if name != "test_an_agent_that_is_killed_is_followed_by_another"
    )


class TestServer(ServerContract):
    @pytest.fixture
    def here(self, here: Lab, postgresql_server: PostgresqlServer) -> Iterator[Lab]:
        with postgresql_server.database() as name:
            yield dataclasses.replace(here, database_url=postgresql_server.url(name))

    # Faults of the server, and on the way there

    def test_files_that_are_damaged_there_are_sent_again(self, place, here):
        experiment = self.prepared(place, here)
        there = self.there(here, experiment)
        for file in (there / CODE, there / "agent.json", *there.parents[1].glob("bundles/*.zip")):
            file.write_bytes(file.read_bytes()[:100])
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.rows_stored) == (State.SUCCEEDED, ROWS)

    def test_an_agent_that_hangs_there_is_replaced(self, place, here, monkeypatch):
        monkeypatch.setattr(local, "SILENT_S", 8.0)  # enough for the next one to begin
        experiment = self.prepared(place, here, wait_s=600)
        run_dir = self.there(here, experiment)
        dataclasses.replace(AgentConfig.read(run_dir), beat_s=0.2, lease_s=1.0).write(run_dir)
        subprocess.run(["chown", "-R", run_dir.owner(), run_dir], check=True)
        self.until(place, here, experiment, lambda now: now.state is State.RUNNING)
        hanging = int((run_dir / "boot.lock").read_text())
        os.killpg(hanging, signal.SIGSTOP)
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.rows_stored, ended.attempt) == (State.SUCCEEDED, ROWS, 2)
        eventually(lambda: not alive(hanging))

    def test_an_agent_that_hangs_on_its_way_is_replaced(self, place, here, monkeypatch):
        monkeypatch.setattr(local, "SILENT_S", 8.0)
        experiment = self.prepared(place, here)
        place.ensure_running(here, experiment)
        boot = self.there(here, experiment) / "boot.lock"
        eventually(lambda: boot.read_text().strip())
        hanging = int(boot.read_text())
        os.killpg(hanging, signal.SIGSTOP)
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.rows_stored) == (State.SUCCEEDED, ROWS)
        eventually(lambda: not alive(hanging))

    def test_where_uv_is_all_there_is_it_brings_a_python(self, place, here, server, tmp_path):
        programs, own = server.folder / "programs", server.home / ".local"
        programs.mkdir()
        for file in Path("/usr/bin").iterdir():
            if not file.name.startswith("python"):
                (programs / file.name).symlink_to(file)
        (own / "bin").mkdir(parents=True)
        shutil.copy(find_uv_bin(), own / "bin/uv")
        said = subprocess.run(["/usr/bin/python3", "--version"], capture_output=True, text=True, check=True).stdout
        release, machine = said.split()[1], platform.machine()
        kept = own / f"share/uv/python/cpython-{release}-linux-{machine}-gnu/bin"
        kept.mkdir(parents=True)
        (kept / "python3").symlink_to("/usr/bin/python3")
        (kept / f"python{release.rpartition('.')[0]}").symlink_to("/usr/bin/python3")
        server.use_path(programs)
        try:
            experiment = self.prepared(place, here)
            ended = self.finish(place, here, experiment)
        finally:
            server.use_path(None)
            shutil.rmtree(own)
            shutil.rmtree(programs)
        assert (ended.state, ended.rows_stored) == (State.SUCCEEDED, ROWS)

    def test_a_disk_that_is_full_there_is_one_clear_error(self, place, here, server):
        folder = server.home / "ems"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder], check=True)
        try:
            shutil.chown(folder, server.user)
            with pytest.raises(EmsError, match=r"refused the file .*No space left on device"):
                self.prepared(place, here)
        finally:
            subprocess.run(["umount", folder], check=True)
            shutil.chown(folder, server.user)
        experiment = self.prepared(place, here, wait_s=0.5)
        assert self.finish(place, here, experiment).state is State.SUCCEEDED

    def test_a_log_that_cannot_be_read_there_is_not_taken_for_an_empty_one(self, place, here):
        experiment = self.prepared(place, here)
        ended = self.finish(place, here, experiment)
        (self.there(here, experiment) / "job.log").chmod(0)
        with pytest.raises(EmsError, match=r"does not give the job's log: .*Permission denied"):
            place.log(here, ended, 0)

    def test_while_nobody_is_logged_in_a_run_goes_on_and_its_log_names_the_way(self, place, here, server):
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.state is State.RUNNING)
        Host(server.name, "", unattended=True).log_out()
        describe(here, server, login="person")
        away = Server()
        assert away.live(here, experiment) is None
        away.nudge(here, experiment)
        with pytest.raises(NotConnected) as caught:
            away.log(here, experiment, 0)
        assert caught.value.hint == "Log in: ems login laptop"
        ended = self.finish(away, here, experiment)
        assert (ended.state, ended.rows_stored) == (State.SUCCEEDED, ROWS)
