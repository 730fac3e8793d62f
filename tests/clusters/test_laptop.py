from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from ems import lab
from ems.clusters import Place, local
from ems.clusters.laptop.place import Laptop
from ems.databases import Experiment, State
from ems.lab import Lab
from ems.node.agent.config import AgentConfig
from tests.conftest import registered
from tests.place_contract import ROWS, PlaceContract


class OnThisMachine(PlaceContract):
    """The hooks of places whose agent is a process of this machine, in the lab's own folder."""

    def agents(self, here: Lab, experiment: Experiment) -> list[psutil.Process]:
        run_dir = str(here.run_dir(experiment.id))
        return [process for process in psutil.process_iter(["cmdline"]) if run_dir in (process.info["cmdline"] or [])]

    def kill(self, lab: Lab, experiment: Experiment) -> None:
        agents = self.agents(lab, experiment)
        assert agents
        for agent in agents:
            agent.kill()
        psutil.wait_procs(agents)

    def spoil(self, lab: Lab, experiment: Experiment) -> None:
        for attempt in range(1, 1 + local.MOST_STARTS):
            (lab.run_dir(experiment.id) / f"spool-{attempt}").write_text("a file where a folder must be")

    def beat_seldom(self, lab: Lab, experiment: Experiment) -> None:
        run_dir = lab.run_dir(experiment.id)
        dataclasses.replace(AgentConfig.read(run_dir), beat_s=60.0, lease_s=300.0).write(run_dir)


class TestLaptop(OnThisMachine):
    @pytest.fixture
    def place(self, here):
        return Laptop()

    # A run that was interrupted goes on, whatever was lost of what can be made again.

    def interrupted(self, place: Place, here: Lab) -> Experiment:
        experiment = self.prepared(place, here, wait_s=2)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        self.kill(here, experiment)
        return experiment

    def goes_on(self, here: Lab, experiment: Experiment) -> None:
        local._prepared.clear()  # as another process
        ended = self.finish(Laptop(), here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 2, ROWS)

    @pytest.mark.parametrize("content", [None, "", "{", "{}", '{"experiment_id": 7}', "[1, 2]"])
    def test_after_its_small_file_was_damaged(self, place, here, content):
        experiment = self.interrupted(place, here)
        file = here.run_dir(experiment.id) / "agent.json"
        file.unlink() if content is None else file.write_text(content)
        self.goes_on(here, experiment)

    def test_after_the_bundle_was_lost(self, place, here):
        experiment = self.interrupted(place, here)
        shutil.rmtree(here.work_dir / "bundles")
        self.goes_on(here, experiment)

    def test_after_the_environment_was_lost(self, place, here, tmp_path, monkeypatch):
        monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path / "cache"))
        experiment = self.interrupted(place, here)
        shutil.rmtree(tmp_path / "cache" / "environments")
        self.goes_on(here, experiment)

    def test_after_the_labs_folder_was_moved(self, place, here, monkeypatch):
        experiment = self.interrupted(place, here)
        moved = here.root.with_name("moved")
        here.root.rename(moved)
        monkeypatch.chdir(moved)
        self.goes_on(lab.find(moved), experiment)

    @pytest.mark.parametrize("kept", [True, False])
    def test_after_the_recorded_commit_is_gone(self, place, here, kept):
        """Another commit has the same content; without one, what was made before serves."""
        experiment = self.interrupted(place, here)
        if not kept:
            (here.root / "experiments/pi/main.py").write_text("print('other code')\n")
        git(here.root, "add", "-A")
        git(here.root, "commit", "-q", "--amend", "-m", "Amended")
        git(here.root, "reflog", "expire", "--expire=now", "--all")
        git(here.root, "gc", "-q", "--prune=now")
        with pytest.raises(subprocess.CalledProcessError):
            git(here.root, "cat-file", "-e", experiment.registration.commit)
        self.goes_on(here, experiment)

    def test_ctrl_c_beside_a_colleagues_run_only_leaves(self, place, here):
        """Of a run on another machine, which holds the claim under a name of its own."""
        mine = registered(here)
        assert place.stops_with_its_command(here, mine)
        with here.database() as database:
            assert database.claim(mine.id, agent="another:machine", lease_s=3600)
        assert not place.stops_with_its_command(here, self.look(here, mine))


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=EMS", "-c", "user.email=ems@localhost"]
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)
