"""A DynamoDB server that is killed and comes back with its data: one of these tests' own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ems.databases.dynamodb.service import session
from tests.databases.away_contract import NOWHERE, NetworkContract, Own
from tests.databases.dynamodb_server import ENDPOINT, DynamodbServer, stable_port

pytestmark = pytest.mark.xdist_group("dynamodb_away")


class Servers:
    """One after the other at the same port, with the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, stable_port()
        self.start()

    def start(self) -> None:
        self._server = DynamodbServer.start(self._port, self._folder)
        self.endpoint = self._server.url

    def kill(self) -> None:
        """DynamoDB Local, unlike the service, finishes a transaction no sooner than the next call."""
        client = session().create_client("dynamodb", "eu-central-1", endpoint_url=self.endpoint)
        client.list_tables()
        client.close()
        self._server.kill()


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[Servers]:
    made = Servers(tmp_path_factory.mktemp("dynamodb"))
    yield made
    made.kill()


class TestAway(NetworkContract):
    @pytest.fixture
    def own(self, servers, monkeypatch) -> Own:
        monkeypatch.setenv(ENDPOINT, servers.endpoint)
        url = f"dynamodb://eu-central-1/lab-{uuid.uuid4().hex[:12]}"
        return SimpleNamespace(url=url, kill=servers.kill, start=servers.start)

    @pytest.fixture
    def nowhere(self, own, monkeypatch) -> Callable[[], str]:
        def at_nowhere() -> str:
            monkeypatch.setenv(ENDPOINT, f"http://{NOWHERE}:8000")
            return own.url

        return at_nowhere
