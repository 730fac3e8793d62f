"""The one resource of the provider that wraps any place."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from ems import clusters
from ems.base import plugins
from ems.base.errors import DatabaseUnavailable, EmsError, UserError
from ems.clusters import Place
from ems.databases import State
from ems.databases.sqlite.database import SqliteDatabase
from ems.engine.converged import declared_clusters
from ems.engine.provider import server
from ems.engine.provider.cluster import EvanescentCluster, evanescent_clusters
from ems.engine.provider.resource import Operation
from ems.engine.provider.tokens import token
from ems.lab.telling import Unheard
from tests.conftest import registered


class Recording(Place):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ready: set[str] = set()

    def machines(self, registration):
        return 7

    def prepare(self, lab, registration, say):
        say("opening")
        self.asked.append(f"prepare {registration.stack}")
        self.ready.add(registration.id)

    def is_prepared(self, lab, experiment_id):
        return experiment_id in self.ready

    def release(self, lab, experiment_id, say):
        self.asked.append("release")
        self.ready.discard(experiment_id)

    def ensure_running(self, lab, experiment): ...
    def dismiss(self, lab, experiment_id): ...
    def settle(self, lab, experiment): ...
    def nudge(self, lab, experiment): ...
    def log(self, lab, experiment, start): ...
    def live(self, lab, experiment): ...


@pytest.fixture
def experiment(here):
    return registered(here)


@pytest.fixture
def moon(experiment, monkeypatch):
    """A kind of place that is there as long as the test runs, and where the experiment is."""
    place = Recording()
    names = plugins.names
    monkeypatch.setattr(plugins, "names", lambda package: [*names(package), "moon"])
    monkeypatch.setattr(clusters, "place", {"moon": place, experiment.registration.cluster: place}.__getitem__)
    return place


class Told(Unheard):
    """Keeps what is said and noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line):
        self.lines.append(line)

    note = say


def operation(here, telling: Unheard | None = None) -> Operation:
    return Operation(here, telling or Unheard())


def test_it_is_created_read_and_deleted_as_the_place_says(here, experiment, moon):
    told = Told()
    resource, inputs = EvanescentCluster("moon"), {"experiment_id": experiment.id}
    assert resource.read(operation(here), inputs) is None
    for _ in range(2):
        assert resource.create(operation(here, told), inputs) == {}
    assert resource.read(operation(here), inputs) == {}
    with here.database() as database:
        found = database.experiment(experiment.id)
    assert (found.state, found.machines) == (State.PROVISIONING, 7)
    resource.delete(operation(here), inputs)
    assert resource.read(operation(here), inputs) is None
    assert moon.asked == ["prepare pi", "prepare pi", "release"] and told.lines == ["opening", "opening"]


def test_without_a_row_nothing_is_made(here, moon):
    with pytest.raises(EmsError, match="no row") as caught:
        EvanescentCluster("moon").create(operation(here), {"experiment_id": "unknown"})
    assert "ems up" in caught.value.hint and not moon.asked


def test_each_kind_has_its_resource_type_named_after_it(moon):
    assert [resource.token for resource in evanescent_clusters()] == list(map(token, plugins.names("clusters")))
    assert token("laptop") == "ems:index:Laptop"  # states of existing labs have it


def test_clusters_in_a_state_are_found_also_those_whose_creation_was_interrupted(moon):
    resource = {"type": token("moon")}
    state = {"resources": [{"type": "ems:index:Run"}, resource], "pending_operations": [{"resource": resource}]}
    assert declared_clusters(state) == 2
    assert declared_clusters({}) == declared_clusters({"resources": None, "pending_operations": None}) == 0


def test_a_missing_package_of_a_place_breaks_only_the_lab_that_uses_it(monkeypatch):
    loaded = "import sys; from ems.engine.provider import server as s; s.every_resource(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in modules if name.startswith("ems.clusters.laptop.")]
    monkeypatch.setitem(sys.modules, "ems.clusters.laptop.place", None)
    with pytest.raises(UserError, match="needs a package that is not installed") as caught:
        clusters.place("laptop")
    assert caught.value.hint == "pip install 'ems-experiments[laptop]'"


def test_a_call_waits_for_a_database_that_is_away_and_says_so_once(here, experiment):
    """As when a connection is dropped while a program is planned: it goes on once the database is back."""
    told = Told()
    file = here.root / ".ems/ems.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as keeping, closing(SqliteDatabase(file, 0.05)) as asked:
        keeping.execute("BEGIN EXCLUSIVE")

        def plan() -> str:
            if len(told.lines) == 1:
                keeping.execute("ROLLBACK")
            asked.set_provisioning(experiment.id, 1)
            return "planned"

        assert server._patiently(operation(here, told), plan) == "planned"
    assert [line.partition(":")[0] for line in told.lines] == [
        "The database is away, waiting for it",
        "The database is back.",
    ]


def test_a_call_that_nobody_listens_to_waits_for_nothing(here):
    alone = Operation(here, Unheard(), listening=lambda: False)

    def away() -> None:
        raise DatabaseUnavailable("away")

    with pytest.raises(DatabaseUnavailable):
        server._patiently(alone, away)
