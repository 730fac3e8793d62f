"""A lab on SQLite with a Slurm machine that is reached by SSH: what the head stores there is fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ems.clusters.openssh import Host
from ems.clusters.slurm.place import FETCHED, Slurm
from ems.databases import Experiment, State
from ems.lab import Lab
from tests.clusters import test_slurm_ssh as by_ssh
from tests.clusters.slurm_server import SlurmServer, environments, slurm
from tests.clusters.ssh_server import SshServer, client
from tests.clusters.test_slurm_ssh import shared
from tests.place_contract import ROWS
from tests.processes import eventually

__all__ = ["shared", "slurm"]
pytestmark = pytest.mark.xdist_group("slurm")
CONTRACT = by_ssh.TestSlurmBySsh()


@pytest.fixture
def place(here: Lab, shared: SshServer, slurm: SlurmServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    monkeypatch.setenv("PATH", client(shared)["PATH"])
    by_ssh.describe(here, shared)
    yield Slurm()
    slurm.tried("scancel", "--full", "-u", shared.user)
    shared.kill_all()
    Host(shared.name, "", unattended=True).log_out()


def runs(here: Lab, experiment: Experiment) -> list[dict[str, str]]:
    """Those that were there, as the mailbox has them."""
    file = CONTRACT.there(here, experiment) / "mailbox/row.json"
    return json.loads(file.read_text())["runs"] if file.exists() else []


def waiting(here: Lab, experiment: Experiment) -> list[Path]:
    return list((CONTRACT.there(here, experiment) / "mailbox/outbox").iterdir())


def test_a_run_goes_on_while_nobody_looks_and_is_fetched_then(here: Lab, place: Slurm):
    experiment = CONTRACT.prepared(place, here)
    place.ensure_running(here, experiment)
    eventually(lambda: runs(here, experiment) and runs(here, experiment)[-1]["outcome"])
    now = CONTRACT.look(here, experiment)
    assert (now.state, now.rows_stored) == (State.REGISTERED, 0) and waiting(here, experiment)
    ended = CONTRACT.finish(Slurm(), here, experiment)
    assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 1, ROWS)
    place.release(here, experiment.id)
    assert not waiting(here, experiment)


@pytest.mark.drill
def test_a_head_that_is_killed_is_followed_by_another(here: Lab, place: Slurm):
    experiment = CONTRACT.prepared(place, here, wait_s=600)
    CONTRACT.until(place, here, experiment, lambda now: now.rows_stored > 0)
    CONTRACT.kill(here, experiment)
    ended = CONTRACT.finish(place, here, experiment)
    assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 2, ROWS)


def test_stopping_is_heard_there(here: Lab, place: Slurm):
    experiment = CONTRACT.prepared(place, here, wait_s=600)
    CONTRACT.until(place, here, experiment, lambda now: now.state is State.RUNNING)
    with here.database() as database:
        database.request_cancel(experiment.id)
    place.nudge(here, experiment)
    ended = CONTRACT.until(place, here, experiment, lambda now: now.state.finished)
    assert ended.state is State.CANCELLED


def test_of_such_a_machine_it_is_told_that_rows_are_fetched(here: Lab, place: Slurm, shared: SshServer):
    settings = {"host": shared.name, "login": "unattended", "work_dir": "$SCRATCH/ems", **environments()}
    found = place.survey(here, "laptop", settings, print)
    assert (found["database"], found["store"]) == (FETCHED, FETCHED)
