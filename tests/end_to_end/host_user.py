"""Somebody whose lab's server is a host (`tests.clusters.hosts`), which reaches the lab's database and store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ems.clusters import shipping
from ems.provenance import environment
from tests.clusters.hosts import Host, Network, made_host, made_network
from tests.clusters.slurm_server import build, environments
from tests.databases.servers import PostgresqlServer
from tests.end_to_end.server_user import ServerUser, at_work
from tests.end_to_end.slurm_user import ROOT
from tests.moto_server import running

SUM = "SELECT count(*), count(DISTINCT n), sum(n) FROM e"


class HostUser(ServerUser):
    """Their server is `host`."""

    host: Host

    def attempt(self) -> int:
        ((attempt,),) = self.asked("SELECT attempt FROM experiment")
        return int(attempt)

    def assert_whole(self, points: int) -> None:
        """The rows of an undisturbed run; nothing runs there any more."""
        assert self.asked(SUM) == [(points, points, points * (points + 1) // 2)]
        assert self.asked("SELECT state, points_done, points_failed FROM experiment") == [("succeeded", points, 0)]
        self.wait(lambda: not self.host.running())


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with made_network() as found:
        yield found


@pytest.fixture(scope="module")
def host(net: Network) -> Host:
    """With the environment of the experiments, as nothing beyond the network is reached from there."""
    recipe = shipping.order(environment.from_folder(ROOT / "environments/svd"), archives="", scratch="", code="")
    build(recipe.experiment, environments())
    return made_host(net, Path(environments()["environments_dir"]))


@pytest.fixture(scope="module")
def database(net: Network) -> Iterator[PostgresqlServer]:
    """The lab's, for this machine and all hosts."""
    access = f"host all all {net.prefix}.0/24 trust\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"
    server = PostgresqlServer.make(f"listen_addresses = '127.0.0.1,{net.address}'\n", access)
    yield server
    server.end()


@pytest.fixture(scope="module")
def files(net: Network) -> Iterator[str]:
    with running("-m", "moto.server", "-H", net.address, "-p", "0") as url:
        yield url


@pytest.fixture
def user(
    tmp_path: Path, net: Network, host: Host, database: PostgresqlServer, files: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HostUser]:
    with at_work(tmp_path, host, database, files, monkeypatch, address=net.address, kind=HostUser) as somebody:
        somebody.host = host
        yield somebody
        host.reconnect()
        host.delay(0)
        host.trust()
    host.run(f"rm -rf {host.home}/ems")
