"""What every kind of place promises (`ems.clusters.Place`): subclasses of `PlaceContract` hold one to it, for real."""

from __future__ import annotations

import atexit
import dataclasses
import json
import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pulumi
import pytest

from ems.base.errors import EmsError
from ems.base.messages import quiet
from ems.clusters import Live, Place, local
from ems.databases import ClusterRow, Experiment, State
from ems.lab import Lab
from ems.node.agent.config import AgentConfig
from tests.conftest import commit, registered
from tests.processes import PATIENCE_S

ROWS = 10
STARTS = 2  # of an agent that does not live
LONG = (  # where a run is far away
    "test_preparing_and_releasing_may_be_repeated",
    "test_asked_again_and_again_it_has_one_agent_at_work",
    "test_an_agent_that_is_killed_is_followed_by_another",
    "test_an_agent_that_never_lives_is_an_error_that_says_where_to_look",
    "test_a_nudged_agent_hears_a_cancellation_before_its_next_beat",
)

JOB = """
import os, pathlib, sys, time
with open(os.path.join(os.environ["EMS_RESULTS_DIR"], "a.csv"), "w", buffering=1) as file:
    print("n", file=file)
    for n in range(10):
        print(n, file=file)
        print("wrote", n, flush=True)
        until = time.monotonic() + WAIT_S
        while n == 4 and os.path.exists("HELD") and time.monotonic() < until:
            time.sleep(0.05)
"""


@cache
def held_folder() -> Path:
    """Where the users of all places look."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder)
    return folder


def held(here: Lab) -> Path:
    """The file because of which the lab's job waits."""
    return held_folder() / str(here.id)


class PlaceContract(ABC):
    """`place` is what is tested. The other hooks do to it what happens to places."""

    drilled: tuple[str, ...] = ()
    """Tests that take long with this place: `make drill` alone runs them."""

    @pytest.fixture
    @abstractmethod
    def place(self, here: Lab) -> Place | Iterator[Place]: ...

    @abstractmethod
    def kill(self, lab: Lab, experiment: Experiment) -> None:
        """End the experiment's agent as a crash does, with nothing said."""

    @abstractmethod
    def spoil(self, lab: Lab, experiment: Experiment) -> None:
        """Have each agent of this prepared experiment end at once, without a result."""

    spoilt = ""
    """What the error then says of the reason."""

    @abstractmethod
    def beat_seldom(self, lab: Lab, experiment: Experiment) -> None:
        """Have agents of this prepared experiment beat once a minute."""

    # What it is

    def test_what_it_says_of_itself_has_the_types_that_others_rely_on(self, place, here):
        experiment = registered(here)
        assert isinstance(place.needs_remote, bool)
        assert isinstance(place.stops_with_its_command(here, experiment), bool)
        assert place.machines(experiment.registration) >= 1
        with here.database() as database:
            row = database.record(ClusterRow, experiment.registration.cluster)
        declared = place.declare(experiment.registration, json.loads(row.settings) if row else {}, [])
        assert all(isinstance(found, pulumi.Resource) for found in declared)

    # Made ready, and released

    def test_nothing_is_in_reach_of_an_experiment_that_was_never_prepared(self, place, here):
        experiment = registered(here)
        assert not place.is_prepared(here, experiment.id)
        assert place.log(here, experiment, 0) is None
        assert place.live(here, experiment) is None
        place.nudge(here, experiment)
        place.dismiss(here, experiment.id)
        place.settle(here, experiment)
        place.release(here, experiment.id)
        assert self.look(here, experiment).state is State.REGISTERED

    def test_preparing_and_releasing_may_be_repeated(self, place, here):
        experiment = registered(here)
        said: list[str] = []
        for _ in range(2):
            place.prepare(here, experiment.registration, said.append)
            assert place.is_prepared(here, experiment.id)
        assert said
        for _ in range(2):
            place.release(here, experiment.id)
        place.prepare(here, experiment.registration, quiet)
        assert self.finish(place, here, experiment).state is State.SUCCEEDED

    # Runs

    def test_a_run_stores_its_rows_and_its_log_is_read_in_pieces(self, place, here):
        experiment = self.prepared(place, here)
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 1, ROWS)
        whole = place.log(here, ended, 0)
        assert whole.decode().splitlines()[-ROWS:] == [f"wrote {n}" for n in range(ROWS)]
        assert place.log(here, ended, 6) == whole[6:]
        assert place.log(here, ended, -5) == whole[-5:]
        assert place.log(here, ended, -10_000) == whole
        assert place.log(here, ended, len(whole)) == b""
        place.release(here, experiment.id)
        assert place.log(here, ended, 0) == whole

    def test_asked_again_and_again_it_has_one_agent_at_work(self, place, here):
        experiment = self.prepared(place, here, wait_s=3)
        agents = set()
        while not (now := self.look(here, experiment)).state.finished:
            place.ensure_running(here, now)
            assert place.live(here, now) is None or isinstance(place.live(here, now), Live)
            agents |= {now.agent} - {""}
            time.sleep(0.05)
        assert (now.state, now.attempt, len(agents)) == (State.SUCCEEDED, 1, 1)

    def test_an_agent_that_is_killed_is_followed_by_another(self, place, here):
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        self.kill(here, self.look(here, experiment))
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 2, ROWS)

    def test_an_agent_that_never_lives_is_an_error_that_says_where_to_look(self, place, here, monkeypatch):
        monkeypatch.setattr(local, "MOST_STARTS", STARTS)  # each of which may last as long as a lease
        experiment = self.prepared(place, here)
        self.spoil(here, experiment)
        with pytest.raises(EmsError) as caught:
            self.finish(place, here, experiment)
        assert caught.value.hint and self.spoilt in str(caught.value)
        assert self.look(here, experiment).rows_stored == 0

    def test_a_nudged_agent_hears_a_cancellation_before_its_next_beat(self, place, here):
        experiment = self.prepared(place, here, wait_s=600)
        self.beat_seldom(here, experiment)
        self.until(place, here, experiment, lambda now: now.state is State.RUNNING)
        began = time.monotonic()
        with here.database() as database:
            database.request_cancel(experiment.id)
        while not self.look(here, experiment).state.finished:
            place.nudge(here, experiment)
            time.sleep(0.1)
        assert self.look(here, experiment).state is State.CANCELLED
        assert time.monotonic() - began < 50  # its next beat was a minute away

    # Helpers

    def prepared(self, place: Place, here: Lab, wait_s: float = 0) -> Experiment:
        """Of an experiment whose job waits in its middle that long, or until `finish`."""
        if wait_s:
            held(here).touch()
        text = JOB.replace("WAIT_S", str(wait_s)).replace("HELD", str(held(here)))
        (here.root / "experiments/pi/main.py").write_text(text)
        commit(here.root)
        if place.needs_remote:
            publish(here.root)
        experiment = registered(here)
        place.prepare(here, experiment.registration, quiet)
        return experiment

    def look(self, here: Lab, experiment: Experiment) -> Experiment:
        with here.database() as database:
            found = database.experiment(experiment.id)
        assert found
        return found

    def until(
        self, place: Place, here: Lab, experiment: Experiment, condition: Callable[[Experiment], bool]
    ) -> Experiment:
        """Ask the place for a run, as the run's resource does, until the condition holds."""
        give_up_at = time.monotonic() + PATIENCE_S
        while not condition(now := self.look(here, experiment)):
            assert time.monotonic() < give_up_at, now
            place.ensure_running(here, now)
            time.sleep(0.1)
        return now

    def finish(self, place: Place, here: Lab, experiment: Experiment) -> Experiment:
        held(here).unlink(missing_ok=True)
        return self.until(place, here, experiment, lambda now: now.state.finished)


class FolderPlaceContract(PlaceContract):
    """The hooks of places whose runs lie in a folder that this machine sees; the lab's own, if none is named."""

    spoilt = f"spool-{STARTS}"

    def there(self, lab: Lab, experiment: Experiment) -> Path:
        """The folder of a prepared experiment."""
        return lab.run_dir(experiment.id)

    def spoil(self, lab: Lab, experiment: Experiment) -> None:
        for attempt in range(1, 1 + STARTS):
            (self.there(lab, experiment) / f"spool-{attempt}").write_text("a file where a folder must be")

    def beat_seldom(self, lab: Lab, experiment: Experiment) -> None:
        run_dir = self.there(lab, experiment)
        dataclasses.replace(AgentConfig.read(run_dir), beat_s=60.0, lease_s=300.0).write(run_dir)
        subprocess.run(["chown", "-R", run_dir.owner(), run_dir], check=True)


class SentPlaceContract(FolderPlaceContract):
    """Of those whose runs are sent by SSH, to another user of this machine."""

    def there(self, lab: Lab, experiment: Experiment) -> Path:
        return Path((lab.run_dir(experiment.id) / "sent").read_text())


def publish(root: Path) -> None:
    """Have all commits on a remote, beside the lab."""
    remote = root.with_name("remote.git")
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=root, check=False, capture_output=True)
    subprocess.run(["git", "push", "-q", "origin", "HEAD"], cwd=root, check=True)
