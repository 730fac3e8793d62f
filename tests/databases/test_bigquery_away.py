"""BigQuery's emulator killed and started again, and a gate before it that refuses what rights would."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from ems.databases import connect
from tests.databases.access_contract import Check, SqlAccessContract
from tests.databases.away_contract import NOWHERE, NetworkContract, Own
from tests.databases.bigquery_gate import Judge, gate, reader, stranger
from tests.databases.bigquery_server import PROJECT, BigqueryServer
from tests.databases.cases import Address

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


@pytest.mark.drill
class TestAccess(SqlAccessContract):
    says_read_only = "refuses you.*roles/bigquery.dataEditor"
    says_wrong = "Google does not know who you are.*Log in: gcloud auth"
    says_lost = "has no tables yet.*ems up lab"

    @pytest.fixture
    def address(self, bigquery_url, tmp_path) -> Address:
        return bigquery_url, tmp_path

    def behind_gate(self, address: Address, judge: Judge) -> Callable[[Check], None]:
        def do(check: Check) -> None:
            with pytest.MonkeyPatch.context() as patched, gate(os.environ[HOST], judge) as host:
                patched.setenv(HOST, host)
                with closing(connect(*address)) as client:
                    check(client)

        return do

    @pytest.fixture
    def as_reader(self, address) -> Callable[[Check], None]:
        return self.behind_gate(address, reader)

    @pytest.fixture
    def as_stranger(self, address) -> Callable[[Check], None]:
        return self.behind_gate(address, stranger)

    @pytest.fixture
    def execute(self, address) -> Callable[[str], None]:
        client = bigquery.Client(project=PROJECT, credentials=AnonymousCredentials())
        config = bigquery.QueryJobConfig(default_dataset=address[0].removeprefix("bigquery://").replace("/", "."))
        return lambda statement: client.query_and_wait(statement, job_config=config)
