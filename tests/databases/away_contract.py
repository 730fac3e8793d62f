"""The promises about a database that goes away and comes back: nothing is lost, nothing is there twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from ems.base.errors import DatabaseUnavailable
from ems.databases import Database, Outcome, State, connect
from ems.node.agent.agent import AgentConfig
from tests.databases.cases import batch, claimed, fill_lab, ints, now, states, table
from tests.node.bench import ROWS, bench_of, half
from tests.processes import PATIENCE_S, eventually

NOWHERE = "no-such-host.invalid"


class Own(Protocol):
    """A server of the test's own, with its data in `url`."""

    url: str

    def kill(self) -> None:
        """At once, as in a crash."""

    def start(self) -> None:
        """Again, with the data that was there."""


class AwayContract:
    """A backend's tests give `own`."""

    reads_meanwhile = False
    """True where only those who write notice."""

    @pytest.fixture
    def own(self) -> Own:
        raise NotImplementedError

    @pytest.fixture
    def client(self, own, tmp_path) -> Database:
        """One that gives up soon, if there is such a choice."""
        return connect(own.url, tmp_path)

    def test_an_agents_run_outlives_a_crash_of_the_server(self, own, tmp_path):
        with bench_of(own.url, tmp_path) as bench:
            run_dir = bench.new()
            agent = bench.start(run_dir)
            half(run_dir, agent)
            eventually(lambda: bench.row().rows_stored == 100)
            own.kill()
            (run_dir / "go").touch()
            try:
                eventually(lambda: "The database is away, going on" in log_of(run_dir))
            finally:
                own.start()
            assert agent.wait(PATIENCE_S) == 0, log_of(run_dir)
            row = bench.row()
            assert (row.state, row.error, row.rows_stored, row.attempt) == (State.SUCCEEDED, "", 200, 1)
            assert bench.values() == ROWS
            assert list(bench.database.points("e1")) == [("stored", range(1))]
            assert (run_dir / "starts").read_text() == "x"

    def test_an_agent_waits_for_a_server_that_is_away_at_the_start(self, own, tmp_path):
        with bench_of(own.url, tmp_path) as bench:
            run_dir = bench.new()
            (run_dir / "go").touch()
            own.kill()
            try:
                agent = bench.start(run_dir)
                eventually(lambda: "The database is away, waiting for it" in log_of(run_dir))
                assert not (run_dir / "starts").exists()
            finally:
                own.start()
            assert agent.wait(PATIENCE_S) == 0, log_of(run_dir)
            assert (bench.row().state, bench.row().attempt, bench.values()) == (State.SUCCEEDED, 1, ROWS)

    def test_a_client_is_told_that_the_server_is_away_and_goes_on_when_it_is_back(self, own, client):
        with closing(client) as database:
            database.create()
            fill_lab(database)
            claim = claimed(database)
            database.store(claim, batch([0], ints("x", 1)))
            calls: list[Callable[[], object]] = [lambda: database.store(claim, batch([1], ints("x", 2)))]
            calls += [] if self.reads_meanwhile else [database.experiments, lambda: table(database)]
            own.kill()
            try:
                for call in calls:
                    with pytest.raises(DatabaseUnavailable, match=r"does not answer(.|\n)*try again"):
                        call()
            finally:
                own.start()
            assert (table(database)["x"], states(database), now(database).rows_stored) == ([1], {"stored": [0]}, 1)
            database.store(claim, batch([1], ints("x", 2)))
            own.kill()
            own.start()  # between two calls nobody notices
            database.release(claim, Outcome(State.SUCCEEDED, 2, 0))
            assert (table(database)["x"], now(database).state) == ([1, 2], State.SUCCEEDED)


class NetworkContract(AwayContract):
    """A backend's tests also give `nowhere`, which lets later clients look for the host NOWHERE by the URL it gives."""

    @pytest.fixture
    def nowhere(self) -> Callable[[], str]:
        raise NotImplementedError

    def test_a_host_that_nobody_knows_is_named_and_waited_for(self, own, nowhere, tmp_path):
        with bench_of(own.url, tmp_path) as bench:
            run_dir = bench.prepare(bench.register())
            replace(AgentConfig.read(run_dir), database=nowhere()).write(run_dir)
            agent = bench.start(run_dir)
            eventually(lambda: "The database is away, waiting for it" in log_of(run_dir))
            assert NOWHERE in log_of(run_dir) and "does not answer" in log_of(run_dir)
            assert agent.poll() is None
            agent.terminate()
            assert agent.wait(PATIENCE_S) == 0, log_of(run_dir)
            assert bench.row().state is State.REGISTERED


def log_of(run_dir: Path) -> str:
    return (run_dir / "agent.log").read_text()
