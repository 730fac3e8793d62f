"""A DynamoDB server that is killed and comes back with its data: one of these tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ems.databases import Outcome, State, connect
from ems.errors import DatabaseUnavailable
from tests.database_cases import batch, claimed, fill_lab, ints, now, table, until
from tests.dynamodb_server import ENDPOINT, DynamodbServer, stable_port
from tests.test_agent import PATIENCE_S, ROWS, bench_of, half

pytestmark = pytest.mark.xdist_group("dynamodb_away")
URL = "dynamodb://eu-central-1/lab"


class Own:
    """`server` is the present one; they follow one another with the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = stable_port()
        self.start()

    def start(self) -> None:
        self._server = DynamodbServer.start(self._port, self._folder)
        self.url = self._server.url

    def kill(self) -> None:
        self._server.kill()


@pytest.fixture
def own(tmp_path, monkeypatch) -> Iterator[Own]:
    (tmp_path / "data").mkdir()
    made = Own(tmp_path / "data")
    monkeypatch.setenv(ENDPOINT, made.url)
    yield made
    made.kill()


def test_an_agents_run_outlives_a_crash_of_the_server(own, tmp_path):
    with bench_of(URL, tmp_path) as bench:
        run_dir = bench.new()
        agent = bench.start(run_dir)
        half(run_dir, agent)
        until(lambda: bench.row().rows_stored == 100)
        own.kill()
        (run_dir / "go").touch()
        try:
            until(lambda: "The database is away" in (run_dir / "agent.log").read_text(), PATIENCE_S)
        finally:
            own.start()
        assert agent.wait(PATIENCE_S) == 0
        assert bench.values() == ROWS
        row = bench.row()
        assert (row.state, row.rows_stored, row.attempt) == (State.SUCCEEDED, 200, 1)
        assert (run_dir / "starts").read_text() == "x"


def test_a_client_is_told_that_the_server_is_away_and_goes_on_when_it_is_back(own):
    with closing(connect(URL, Path())) as database:
        database.create()
        fill_lab(database)
        claim = claimed(database)
        database.store(claim, batch([0], ints("x", 1)))
        own.kill()
        for call in (database.experiments, lambda: database.store(claim, batch([1]))):
            with pytest.raises(DatabaseUnavailable, match=r"does not answer(.|\n)*try again"):
                call()
        own.start()
        database.store(claim, batch([1], ints("x", 2)))
        database.release(claim, Outcome(State.SUCCEEDED, 2, 0))
        assert (table(database)["x"], now(database).state) == ([1, 2], State.SUCCEEDED)
