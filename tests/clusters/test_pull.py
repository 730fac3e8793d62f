"""A lab on SQLite with a server far away, for real: sshd, a user of its own, rows that are fetched."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ems import clusters
from ems.base.errors import UserError
from ems.base.messages import quiet
from ems.clusters import fetching
from ems.clusters.openssh import Host
from ems.clusters.server.place import Server
from ems.databases import State
from ems.engine import lifecycle
from ems.lab import outputs
from tests.clusters import test_server
from tests.clusters.ssh_server import SshServer, started
from tests.conftest import commit, registered
from tests.place_contract import LONG, ROWS, held
from tests.processes import PATIENCE_S, eventually

pytestmark = pytest.mark.xdist_group("ssh")
KILLED = """
import os, signal, sys
from ems import lab
from ems.clusters import pull
from ems.clusters.server.place import Server
taken = pull.Pull._taken
def and_die(self, *given):
    if taken(self, *given)[0].get("fetched"):
        os.kill(os.getpid(), signal.SIGKILL)
    return {}, pull.Fetched()
pull.Pull._taken = and_die
here = lab.find()
with here.database() as database:
    experiment = database.experiment(sys.argv[1])
Server().fetch(here, experiment)
"""
LEAVES = """
import os, pathlib
pathlib.Path(os.environ["EMS_OUTPUT_DIR"], "model.bin").write_text("a model")
pathlib.Path(os.environ["EMS_RESULTS_DIR"], "a.csv").write_text("n\\n1\\n")
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[SshServer]:
    with started() as server:
        yield server


class TestPull(test_server.ServerContract):
    """All that a place promises, where its agents do not reach the lab's database."""

    drilled = (
        *LONG,
        "test_a_deadline_that_passes_while_nobody_looks_is_the_place_s",
        "test_a_glance_brings_rows_and_opens_no_connection",
    )

    def ended_there(self, here, experiment):
        file = self.there(here, experiment) / "mailbox/row.json"
        runs = json.loads(file.read_text())["runs"] if file.exists() else []
        return bool(runs and runs[-1]["outcome"])

    def test_while_nobody_is_logged_in_a_run_goes_on_and_is_not_lost(self, place, here, server):
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.state is State.RUNNING)
        Host(server.name, "", unattended=True).log_out()
        test_server.describe(here, server, login="person")
        away = Server()
        said = away.ensure_running(here, self.look(here, experiment))
        assert "the run goes on there" in said
        held(here).unlink()
        eventually(lambda: self.ended_there(here, experiment))
        assert away.ensure_running(here, self.look(here, experiment)) == ""
        assert self.look(here, experiment).state is State.RUNNING
        test_server.describe(here, server)
        ended = self.finish(Server(), here, experiment)
        assert (ended.state, ended.rows_stored) == (State.SUCCEEDED, ROWS)

    # Where the rows are here

    def test_nobody_looks_during_a_whole_run_and_then_it_is_fetched_at_once(self, place, here, monkeypatch):
        monkeypatch.setattr(clusters, "of", lambda *_: place)
        experiment = self.prepared(place, here)
        place.ensure_running(here, experiment)
        eventually(lambda: self.ended_there(here, experiment))
        assert self.look(here, experiment).state is State.REGISTERED
        (synced,) = fetching.sync(here, ["pi"], print)
        assert (synced.experiment.state, synced.experiment.rows_stored) == (State.SUCCEEDED, ROWS)
        assert synced.fetched.bytes > 0 and synced.fetched.batches_left == 0
        (again,) = fetching.sync(here, ["pi"], print)
        assert (again.fetched.batches, again.experiment.state) == (0, State.SUCCEEDED)

    def test_a_command_that_is_killed_before_it_confirms_doubles_nothing(self, place, here):
        experiment = self.prepared(place, here)
        place.ensure_running(here, experiment)
        eventually(lambda: self.ended_there(here, experiment))
        waiting = list((self.there(here, experiment) / "mailbox/outbox").iterdir())
        done = subprocess.run([sys.executable, "-c", KILLED, experiment.id], cwd=here.root, check=False)
        assert done.returncode == -signal.SIGKILL
        assert list((self.there(here, experiment) / "mailbox/outbox").iterdir()) == waiting
        assert self.look(here, experiment).rows_stored == ROWS
        ended = self.finish(Server(), here, experiment)
        assert (ended.state, ended.rows_stored, ended.attempt) == (State.SUCCEEDED, ROWS, 1)

    def test_a_stop_is_heard_there_and_what_was_computed_is_here(self, place, here, monkeypatch):
        monkeypatch.setattr(clusters, "of", lambda *_: place)
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        ended = lifecycle.stop(here, self.look(here, experiment))
        assert (ended.state, ended.rows_stored) == (State.CANCELLED, 5)

    def test_a_glance_brings_rows_and_opens_no_connection(self, place, here, server, monkeypatch):
        monkeypatch.setattr(clusters, "of", lambda *_: place)
        experiment = self.prepared(place, here)
        place.ensure_running(here, experiment)
        eventually(lambda: self.ended_there(here, experiment))
        host = Host(server.name, "", unattended=True)
        host.log_out()
        began = time.monotonic()
        fetching.glance(here, ["pi"])
        assert not host.is_connected() and time.monotonic() - began < 5
        assert self.look(here, experiment).state is State.REGISTERED
        host.run("true")
        fetching.glance(here, ["pi"])
        assert self.look(here, experiment).state is State.SUCCEEDED

    def test_a_copy_of_before_is_told_and_what_is_missing_is_computed_again(self, place, here):
        experiment = self.prepared(place, here)
        place.ensure_running(here, experiment)
        file = here.root / ".ems/ems.db"
        with sqlite3.connect(file) as there, sqlite3.connect(here.root / "copy.db") as copy:
            there.backup(copy)
        assert self.finish(place, here, experiment).rows_stored == ROWS
        for part in file.parent.glob("ems.db*"):
            part.unlink()
        (here.root / "copy.db").rename(file)
        said, give_up_at = [], time.monotonic() + PATIENCE_S
        while not (now := self.look(here, experiment)).state.finished:
            said.append(place.ensure_running(here, now))
            assert time.monotonic() < give_up_at
            time.sleep(0.1)
        assert (now.state, now.rows_stored, now.attempt) == (State.SUCCEEDED, ROWS, 2)
        assert "10 rows that the place had computed are not in the lab's database" in " ".join(said)

    def test_a_second_laptop_is_told_whose_the_run_is(self, place, here, server, tmp_path):
        experiment = self.prepared(place, here)
        place.ensure_running(here, experiment)
        other = replace(here, root=tmp_path / "other")
        shutil.copytree(here.root, other.root, symlinks=True, ignore=shutil.ignore_patterns("ems.db*", "runs"))
        test_server.describe(other, server)
        theirs = registered(other)
        test_server.describe(other, server)
        assert theirs.id == experiment.id
        with pytest.raises(UserError) as caught:
            Server().ensure_running(other, theirs)
        assert f"belongs to another database: {here.database_url} of {here.root}" in str(caught.value)
        assert self.finish(place, here, experiment).state is State.SUCCEEDED

    def test_a_deadline_that_passes_while_nobody_looks_is_the_place_s(self, place, here):
        stack = here.stack_file("pi")
        stack.write_text(stack.read_text().replace("max_hours: 1\n", "max_hours: 0.001\n"))
        experiment = self.prepared(place, here, wait_s=600)
        place.ensure_running(here, experiment)
        eventually(lambda: self.ended_there(here, experiment))
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.rows_stored) == (State.EXPIRED, 5)
        assert "max_hours, 0.001, are used up" in ended.error
        assert ended.finished_at and ended.took_s < 60

    def test_files_that_a_job_leaves_are_in_the_lab_s_store(self, place, here, tmp_path):
        (here.root / "experiments/pi/main.py").write_text(LEAVES)
        commit(here.root)
        experiment = registered(here)
        place.prepare(here, experiment.registration, quiet)
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.files_left) == (State.SUCCEEDED, "")
        found = outputs.fetch(here, outputs.of_experiment(here, ended), tmp_path / "to", points=False)
        assert [(each.output.name, each.path.read_text()) for each in found] == [("model.bin", "a model")]
        assert not [*self.there(here, experiment).glob("mailbox/store/??/*")]
