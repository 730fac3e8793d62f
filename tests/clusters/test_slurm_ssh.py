"""A Slurm machine that is reached by SSH: a real sshd before a real Slurm, and a user who has both only there."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from ems.base.errors import Unreachable, UserError
from ems.base.messages import quiet
from ems.clusters.openssh import Host, NotConnected
from ems.clusters.sent import SENT
from ems.clusters.slurm import late
from ems.clusters.slurm.heads import Head, job_name
from ems.clusters.slurm.machine import Run
from ems.clusters.slurm.place import Slurm
from ems.clusters.slurm.queue import Queue
from ems.databases import ClusterRow, Experiment, State
from ems.lab import Lab
from tests.clusters.slurm_server import SlurmServer, environments, lying, slurm
from tests.clusters.ssh_server import PASSWORD, SshServer, client, passcode, started
from tests.clusters.test_openssh import logged_in
from tests.conftest import registered
from tests.databases.servers import PostgresqlServer
from tests.place_contract import LONG, ROWS, SentPlaceContract
from tests.processes import eventually, having

__all__ = ["slurm"]
pytestmark = pytest.mark.xdist_group("slurm")

PROFILE = """\
export SLURM_CONF={conf}
export SCRATCH="$HOME/scratch" PATH="$HOME/programs:$PATH"
echo "Welcome. Quota: 3 % used."
read -r answer
"""


def know(server: SshServer, slurm: SlurmServer) -> None:
    """Have Slurm know the user, whose login shells find it."""
    said = PROFILE.format(conf=slurm.variables["SLURM_CONF"])
    (server.home / ".bash_profile").write_text(said)
    (server.home / "programs").mkdir()
    slurm.run("sacctmgr", "-iQ", "add", "user", server.user, "account=grant")


def lie(server: SshServer, name: str, text: str) -> Path:
    """Put a command that lies before the true one there; its file."""
    file = server.home / "programs" / name
    file.write_text(lying(name, text))
    file.chmod(0o755)
    return file


@pytest.fixture(scope="module")
def shared(slurm: SlurmServer) -> Iterator[SshServer]:
    with started() as server:
        know(server, slurm)
        yield server


def describe(here: Lab, server: SshServer, **more: object) -> None:
    """Have the place that `registered` experiments name be the Slurm there."""
    settings = {"host": server.name, "login": "unattended", "work_dir": "$SCRATCH/ems", **environments(), **more}
    with here.database() as database:
        database.create()
        database.upsert(ClusterRow("laptop", "slurm", json.dumps(settings)))


class TestSlurmBySsh(SentPlaceContract):
    @pytest.fixture
    def here(self, here: Lab, postgresql_server: PostgresqlServer) -> Iterator[Lab]:
        with postgresql_server.database() as name:
            yield dataclasses.replace(here, database_url=postgresql_server.url(name))

    @pytest.fixture
    def server(self, shared: SshServer, slurm: SlurmServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
        monkeypatch.setenv("PATH", client(shared)["PATH"])
        yield shared
        slurm.tried("scancel", "--full", "-u", shared.user)
        shared.kill_all()
        Host(shared.name, "", unattended=True).log_out()
        for folder in (shared.home / "scratch", shared.home / ".cache/ems"):
            shutil.rmtree(folder, ignore_errors=True)

    @pytest.fixture
    def place(self, here: Lab, server: SshServer) -> Slurm:
        describe(here, server)
        return Slurm()

    def kill(self, lab: Lab, experiment: Experiment) -> None:
        agents = having(experiment.id, having("ems.clusters.slurm.head", psutil.process_iter()))
        agents = [agent for agent in agents if agent.name().startswith("python")]
        assert agents
        for agent in agents:
            agent.kill()

    def submitted(self, lab: Lab, experiment: Experiment) -> int:
        last = Head(self.there(lab, experiment), experiment.id, Queue()).last()
        return last.number if last else 0

    drilled = (*LONG, "test_a_machine_that_is_away_is_waited_for")

    # The connection

    def test_a_machine_that_is_away_is_waited_for(self, place, here, server):
        experiment = self.prepared(place, here, wait_s=2)
        assert place.ensure_running(here, experiment) == ""
        waiting, said = dataclasses.replace(experiment, state=State.QUEUED), [""]
        server.cut()
        server.end()
        try:
            eventually(lambda: said.append(place.ensure_running(here, waiting)) or said[-1])
            assert said[-1].startswith("waiting for a connection: ") and place.live(here, waiting) is None
        finally:
            server.start()
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, self.submitted(here, experiment)) == (State.SUCCEEDED, 1, 1)

    def test_what_was_removed_there_before_a_job_began_is_sent_again(self, place, here, server):
        experiment = self.prepared(place, here)
        shutil.rmtree(server.home / "scratch")
        assert self.finish(place, here, experiment).state is State.SUCCEEDED

    def test_what_a_run_cost_is_learned_later_where_accounting_was_away(self, place, here, server):
        experiment = self.prepared(place, here)
        ended = self.finish(place, here, experiment)
        there, now = self.there(here, ended), datetime.now(UTC)
        since, until = (now - timedelta(hours=1)).isoformat(), now.isoformat()
        late.note(there, late.Due(1, 3600.0, (job_name(ended.id),), since, until))
        (note,) = there.glob("cost-*.json")
        shutil.chown(note, server.user)
        eventually(lambda: place.refuse(here, ended.registration) or not note.exists())
        assert self.look(here, ended).cost_usd > 0

    def test_a_submission_whose_connection_is_cut_is_not_repeated(self, place, here, server, slurm):
        experiment = self.prepared(place, here)
        begun = server.home / "begun"
        slow = lie(server, "sbatch", f'echo >> {shlex.quote(str(begun))}; sleep 2; REAL "$@"')
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(place.ensure_running, here, experiment)
            eventually(begun.exists)
            server.cut()
            asking.result()
        slow.unlink()
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.rows_stored, self.submitted(here, experiment)) == (State.SUCCEEDED, ROWS, 1)
        assert begun.read_text() == "\n"

    def test_another_command_finds_the_job_that_a_killed_one_submitted(self, place, here, server):
        experiment = self.prepared(place, here, wait_s=2)
        place.ensure_running(here, experiment)
        assert self.submitted(here, experiment) == 1
        shutil.rmtree(here.run_dir(experiment.id))  # as from another laptop
        ended = self.finish(Slurm(), here, experiment)
        assert (ended.state, ended.attempt, self.submitted(here, experiment)) == (State.SUCCEEDED, 1, 1)

    def test_while_nobody_is_logged_in_nothing_tries_and_the_way_is_named(self, place, here, server):
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.state is State.RUNNING)
        Host(server.name, "", unattended=True).log_out()
        describe(here, server, login="person")
        away, before = Slurm(), server.attempts
        assert away.live(here, experiment) is None
        away.nudge(here, experiment)
        for ask in (away.log, lambda *_: away.prepare(here, experiment.registration, quiet)):
            with pytest.raises(NotConnected) as caught:
                ask(here, experiment, 0)
            assert caught.value.hint == "Log in: ems login laptop"
        waiting = dataclasses.replace(experiment, state=State.QUEUED)
        assert "Log in: ems login laptop" in away.ensure_running(here, waiting)
        ended = self.finish(away, here, experiment)
        assert (ended.state, ended.rows_stored, server.attempts) == (State.SUCCEEDED, ROWS, before)

    def test_one_command_looks_at_all_runs(self, place, here, server, monkeypatch):
        experiment = self.prepared(place, here)
        sent = here.run_dir(experiment.id)
        for number in range(50):
            shutil.copytree(sent, sent.with_name(f"run-{number}"))
            (sent.with_name(f"run-{number}") / SENT).write_text(
                str(self.there(here, experiment).with_name(f"{number}"))
            )
        asked = []
        monkeypatch.setattr(Host, "run", lambda *words, real=Host.run, **more: asked.append(1) or real(*words, **more))
        place = Slurm()
        place.live(here, experiment)
        before, began = len(asked), time.monotonic()
        far = place._run(here, experiment.id).machine
        for number in range(50):
            id = f"run-{number}"
            far.look(here, Run(far, far.folder(here, id), id), asks=False)
        assert len(asked) == before and time.monotonic() - began < 2

    # What Slurm does there

    def test_a_preempted_head_goes_on_in_the_same_job(self, place, here, server, slurm):
        describe(here, server, partition=["owners"])
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)

        def head() -> dict[str, str]:
            id = Head(self.there(here, experiment), experiment.id, Queue()).last().id
            return dict(pair.split("=", 1) for pair in slurm.run("scontrol", "show", "job", id).split() if "=" in pair)

        before = head()
        slurm.run("sbatch", "-p", "group", "--exclusive", "-w", before["NodeList"], "-t", "2", "--wrap", "sleep 1")
        eventually(lambda: head()["JobState"] == "PENDING")
        slurm.start_soon(before["JobId"])
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 2, ROWS)
        assert (head()["JobId"], head()["Restarts"]) == (before["JobId"], "1")

    def test_modules_of_the_machine_are_loaded_there_and_others_are_refused(self, here, server):
        file, profile = server.home / "modulefiles/tool/1.0", server.home / ".bash_profile"
        file.parent.mkdir(parents=True)
        file.write_text("#%Module1.0\nsetenv TOOL_SAYS word\n")
        before = profile.read_text()
        profile.write_text(before.replace("read -r", 'module use "$HOME/modulefiles"\nread -r'))
        try:
            describe(here, server, modules=["tool/2.0"])
            with pytest.raises(UserError, match=r"'tool/2.0', which cannot be loaded here: ERROR: [^\n]*\nSee which"):
                Slurm().refuse(here, registered(here).registration)
            describe(here, server, modules=["tool/1.0"])
            place = Slurm()
            ended = self.finish(place, here, self.prepared(place, here))
            assert (ended.state, ended.rows_stored) == (State.SUCCEEDED, ROWS)
            with here.database() as database:
                (found,) = database.newest(["pi"], also=["platform"])
            assert json.loads(found.platform)["modules"] == ["tool/1.0"]
        finally:
            profile.write_text(before)

    # What is found there

    def test_what_is_found_of_the_machine_is_what_its_login_node_sees(self, place, here, server):
        settings = {"host": server.name, "login": "unattended", "work_dir": "$SCRATCH/ems", **environments()}
        said: list[str] = []
        found = place.survey(here, "sherlock", settings, said.append)
        assert found["slurm"].startswith("2") and found["database"] == "reached from a compute node", found
        assert found["work_dir"]["path"] == str(server.home / "scratch/ems")
        assert found["accounts"] == ["grant"] and "normal" in [each["name"] for each in found["partitions"]]
        assert not list((server.home / "scratch/ems").glob("probe-*"))
        for wrong, said_of_it in [
            ({"partition": ["norml"]}, "ems:cluster.partition is 'norml', .* did you mean normal"),
            ({"account": "other"}, f"which {server.user} may not charge"),
            ({"work_dir": "$NOWHERE/ems"}, "has a variable that .* does not have"),
        ]:
            with pytest.raises(UserError, match=said_of_it):
                place.survey(here, "sherlock", {**settings, **wrong}, quiet)

    def test_what_slurm_would_not_take_is_refused_before_anything_is_registered(self, place, here, server):
        describe(here, server, qos="nope")
        with pytest.raises(UserError, match=r"(?s)Slurm refuses the job of the head: .*Invalid qos"):
            place.refuse(here, registered(here).registration)

    def test_without_slurm_there_it_says_so(self, place, here, server):
        missing = lie(server, "sinfo", "exit 127")
        try:
            with pytest.raises(UserError, match=f"{server.name}: There is no `sbatch` here"):
                place.survey(here, "s", {"host": server.name, "login": "unattended"}, quiet)
        finally:
            missing.unlink()


@pytest.fixture
def careful(slurm: SlurmServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """A login node that refuses keys, and asks for a password and a second answer."""
    with started(factors=True) as server:
        know(server, slurm)
        monkeypatch.setenv("PATH", client(server)["PATH"])
        yield server
        slurm.tried("scancel", "--full", "-u", server.user)
        Host(server.name, "", unattended=False).log_out()


def test_a_person_logs_in_once_and_all_that_follows_uses_that_connection(here, careful):
    settings = {"host": careful.name, **environments()}
    place, before = Slurm(), careful.attempts
    for _ in range(2):
        with pytest.raises(NotConnected) as caught:
            place.survey(here, "sherlock", settings, quiet)
        assert caught.value.hint == "Log in: ems login sherlock"
    assert careful.attempts == before
    code, _ = logged_in(careful, PASSWORD, passcode())
    assert code == 0
    found = place.survey(here, "sherlock", settings, quiet)
    assert found["work_dir"]["path"] == str(careful.home / "ems") and found["accounts"] == ["grant"]
    careful.cut()
    with pytest.raises(Unreachable) as caught:
        place.survey(here, "sherlock", settings, quiet)
    assert caught.value.hint == "Log in: ems login sherlock"
    assert careful.attempts == before + 1
