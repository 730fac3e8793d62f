"""BigQuery's emulator killed and started again, and a gate before it that refuses what rights would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from tests.away_contract import NOWHERE, NetworkContract, Own
from tests.bigquery_server import BigqueryServer

pytestmark = pytest.mark.xdist_group("bigquery_away")
HOST = "BIGQUERY_EMULATOR_HOST"


@pytest.fixture(scope="module")
def server() -> Iterator[BigqueryServer]:
    """An emulator of these tests' own."""
    made = BigqueryServer.make()
    yield made
    made.end()


@pytest.mark.drill
class TestAway(NetworkContract):
    patience_s = 200.0

    @pytest.fixture
    def own(self, server, monkeypatch) -> Own:
        monkeypatch.setenv(HOST, server.host)
        return SimpleNamespace(url=server.url(), kill=server.kill, start=server.start)

    @pytest.fixture
    def nowhere(self, own, monkeypatch) -> Callable[[], str]:
        def at_nowhere() -> str:
            monkeypatch.setenv(HOST, f"http://{NOWHERE}:9050")
            return own.url

        return at_nowhere
