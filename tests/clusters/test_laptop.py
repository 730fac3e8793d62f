from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from ems import lab
from ems.base import aside
from ems.base.errors import EmsError, refused
from ems.clusters import Place, local
from ems.clusters.laptop.place import Laptop
from ems.databases import Experiment, State
from ems.engine import lifecycle
from ems.lab import Lab
from ems.node import run_folder
from ems.node.agent import lock
from ems.node.agent.config import AgentConfig
from tests.conftest import registered
from tests.place_contract import ROWS, FolderPlaceContract
from tests.processes import PATIENCE_S, alive, eventually

FILES = (
    *("agent.json", "agent.id", "agent.lock", "job.lock", "job.token", "job.log"),
    *("platform.json", "parameters.json", "progress.json", "exit.json"),
)


class OnThisMachine(FolderPlaceContract):
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


class TestLaptop(OnThisMachine):
    @pytest.fixture
    def place(self, here):
        return Laptop()

    # An agent that is expected

    def test_one_that_is_expected_begins_when_it_is_told(self, place, here):
        experiment = self.prepared(place, here)
        place.expect(here, experiment.registration)
        (agent,) = self.agents(here, experiment)
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 1, ROWS)
        assert agent.wait(PATIENCE_S) == 0  # it was the one

    def test_one_that_is_expected_and_killed_is_done_without(self, place, here):
        experiment = self.prepared(place, here)
        place.expect(here, experiment.registration)
        self.kill(here, experiment)
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 1, ROWS)

    def test_one_that_is_expected_ends_with_who_expects_it(self, here):
        experiment = registered(here)
        code = (
            "import sys; from ems import lab; from ems.clusters.local import Agents; from pathlib import Path;"
            "Agents().expect(lab.find(Path(sys.argv[1])), sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", code, here.root, experiment.id], check=True)
        eventually(lambda: not self.agents(here, experiment))
        assert self.look(here, experiment).state is State.REGISTERED
        assert {path.name for path in here.run_dir(experiment.id).iterdir()} == {"agent.log"}

    # An agent that hangs

    def hung(self, place: Place, here: Lab) -> tuple[Experiment, psutil.Process]:
        """Its agent is stopped outside of a transaction: within one it would lock the database."""
        experiment = self.prepared(place, here, wait_s=600)
        config = AgentConfig.read(here.run_dir(experiment.id))
        dataclasses.replace(config, lease_s=2.0, beat_s=0.2).write(here.run_dir(experiment.id))
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        (agent,) = self.agents(here, experiment)
        while True:
            agent.suspend()
            time.sleep(0.1)  # its threads stop one by one
            connection = sqlite3.connect(here.root / ".ems/ems.db", timeout=0, isolation_level=None)
            with closing(connection), suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
                return experiment, agent
            agent.resume()
            time.sleep(0.02)

    def test_its_starter_replaces_it_past_the_lease(self, place, here, monkeypatch):
        monkeypatch.setattr(local, "SILENT_S", 8.0)  # enough for the next one to begin
        experiment, agent = self.hung(place, here)
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 2, ROWS)
        assert not agent.is_running() and len(place._agents._started[experiment.id]) == 2

    @pytest.mark.parametrize(
        ("log", "said"),
        [
            ("", "it said nothing"),
            ("2026-01-01Z INFO ems.node: Ended\n", "it said nothing"),
            ("2026-01-01Z ERROR root: The bundle cannot be read.\n`ems up` makes it.\n", "The bundle cannot be read."),
            ("Z ERROR x: old\nTraceback (most recent call last):\n  File 1\nValueError: new\n", "ValueError: new"),
            ("ems.base.errors.DatabaseError: lost a table (charge).\nRestore it.\n", "lost a table (charge)."),
        ],
    )
    def test_the_last_words_of_agents_are_their_last_error(self, tmp_path, log, said):
        (tmp_path / "agent.log").write_text(log)
        assert said in run_folder.last_words(tmp_path)

    def test_a_time_in_which_nobody_looked_is_no_silence(self, monkeypatch):
        clock = [0.0]
        monkeypatch.setattr(local.time, "monotonic", lambda: clock[0])
        silence = local.Silence()
        for passed, silent, lasted in [(1, True, 1), (3600, True, 3), (1, False, 0), (0.5, True, 0.5)]:
            clock[0] += passed
            silence.look(silent)
            assert silence.lasted_s == lasted

    def test_a_stop_ends_it(self, place, here, monkeypatch):
        monkeypatch.setattr(lock, "LEAVES_S", 0.5)
        experiment, agent = self.hung(place, here)
        assert lifecycle.stop(here, experiment).state is State.CANCELLED
        psutil.wait_procs([agent], timeout=PATIENCE_S)
        assert not alive(agent.pid)

    # A run that was interrupted goes on, whatever was lost of what can be made again.

    def interrupted(self, place: Place, here: Lab) -> Experiment:
        experiment = self.prepared(place, here, wait_s=600)
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

    @pytest.mark.parametrize("damage", ["missing", "empty", "half", "foreign"])
    def test_after_every_file_was_damaged(self, place, here, damage):
        """All that EMS writes for a run, with what a power cut, a full disk or a stranger makes of it."""
        experiment = self.interrupted(place, here)
        run_dir = here.run_dir(experiment.id)
        (run_dir / "progress.json").write_text("{}")
        (run_dir / "platform.json").write_text("[]")  # may not have come yet
        (run_dir / "exit.json").write_text('{"rows": 0, "state": "lost", "points_done": 0, "points_failed": 0}')
        bundles = here.work_dir / "bundles"
        files = [*(run_dir / name for name in FILES), *bundles.iterdir(), *run_dir.glob("spool-*/*")]
        assert all(file.exists() for file in files), files
        for file in files:
            damaged(file, damage)
        shown = self.look(here, experiment)
        assert local.live(run_dir, shown) is not None
        with closing(sqlite3.connect(here.root / ".ems/ems.db")) as connection, connection:
            connection.execute("UPDATE run SET lease_until = '2020-01-01 00:00:00'")  # it has another name now
        self.goes_on(here, experiment)

    @pytest.mark.parametrize("name", [*FILES, "agent.log", "spool-2", "inputs", "code", "results"])
    def test_what_stands_in_the_way_of_a_file_is_named_or_replaced(self, place, here, name):
        """A folder where a file must be, or the other way round, as a stand-in for what cannot be read or written."""
        experiment = self.interrupted(place, here)
        path = here.run_dir(experiment.id) / name
        is_folder = path.is_dir() or name in {"spool-2", "inputs"}
        aside.remove(path)
        path.write_text("in the way") if is_folder else (path / "in the way").mkdir(parents=True)
        with closing(sqlite3.connect(here.root / ".ems/ems.db")) as connection, connection:
            connection.execute("UPDATE run SET lease_until = '2020-01-01 00:00:00'")
        local._prepared.clear()
        try:
            self.finish(Laptop(), here, experiment)
        except (EmsError, OSError) as error:
            said = str(refused(error) if isinstance(error, OSError) else error)
            assert name in said, said
            aside.remove(path)
            self.finish(Laptop(), here, experiment)
        ended = self.look(here, experiment)
        if ended.state is State.FAILED:
            assert name in ended.error, ended.error
            aside.remove(path)
            with here.database() as database:
                database.reopen(experiment.id)
            ended = self.finish(Laptop(), here, experiment)
        assert (ended.state, ended.rows_stored) == (State.SUCCEEDED, ROWS)

    def copied(self, here: Lab) -> Path:
        with closing(sqlite3.connect(here.root / ".ems/ems.db")) as now, closing(sqlite3.connect("copy.db")) as copy:
            now.backup(copy)
        return Path("copy.db")

    def set_back(self, here: Lab, copy: Path) -> None:
        file = here.root / ".ems/ems.db"
        copy.replace(file)
        for suffix in ("-wal", "-shm"):
            Path(f"{file}{suffix}").unlink(missing_ok=True)

    def test_after_the_database_was_restored_from_a_copy_of_before_the_run(self, place, here):
        experiment = self.prepared(place, here, wait_s=600)
        copy = self.copied(here)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        self.kill(here, experiment)
        self.set_back(here, copy)
        ended = self.finish(Laptop(), here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 1, ROWS)

    def test_a_run_that_the_restored_database_does_not_know_stops_and_another_one_begins(self, place, here):
        experiment = self.prepared(place, here, wait_s=600)
        copy = self.copied(here)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        (agent,) = self.agents(here, experiment)
        self.set_back(here, copy)
        psutil.wait_procs([agent], timeout=PATIENCE_S)
        log = (here.run_dir(experiment.id) / "agent.log").read_text()
        assert not agent.is_running() and "the database does not know it, and was set back to run 0" in log
        again = self.until(Laptop(), here, experiment, lambda now: now.rows_stored > 0)
        assert (again.state, again.attempt) == (State.RUNNING, 1)
        self.kill(here, experiment)

    def test_after_the_clock_was_set_back_by_a_day(self, place, here):
        """What the database noted lies in the future then, as here: its clock is this machine's."""
        experiment = self.interrupted(place, here)
        with closing(sqlite3.connect(here.root / ".ems/ems.db")) as connection, connection:
            for name in ("claimed_at", "heartbeat_at", "lease_until"):
                connection.execute(f"UPDATE run SET {name} = strftime('%Y-%m-%d %H:%M:%f', {name}, '+1 day')")
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
        head = git(here.root, "rev-parse", "HEAD").stdout.decode().strip()
        used = json.loads(self.look(here, experiment).platform)["commit"]
        assert used == (head if kept else experiment.registration.commit) != ""

    def test_ctrl_c_beside_a_colleagues_run_only_leaves(self, place, here):
        """Of a run on another machine, which holds the claim under a name of its own."""
        mine = registered(here)
        assert place.stops_with_its_command(here, mine)
        with here.database() as database:
            assert database.claim(mine.id, agent="another:machine", lease_s=3600)
        assert not place.stops_with_its_command(here, self.look(here, mine))


def damaged(file: Path, how: str) -> None:
    content = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "foreign": b"\xff foreign"}[how])


def git(root: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    who = ["-c", "user.name=EMS", "-c", "user.email=ems@localhost"]
    return subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)
