"""A Slurm machine, for real: its controller, three nodes, accounting."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from ems.base.errors import UserError
from ems.base.locks import lock_folder
from ems.clusters.slurm import environments as of_place
from ems.clusters.slurm import heads, queue
from ems.clusters.slurm.heads import Head, Submission, crew_name, job_name
from ems.clusters.slurm.place import Slurm
from ems.clusters.slurm.queue import Queue
from ems.databases import ClusterRow, Experiment, State
from ems.lab import Lab
from tests.clusters.slurm_server import SlurmServer, environments, faked, slurm
from tests.conftest import registered
from tests.place_contract import ROWS, FolderPlaceContract
from tests.processes import eventually, having

__all__ = ["slurm"]
pytestmark = pytest.mark.xdist_group("slurm")


def settings(here: Lab, text: str = "{}") -> None:
    """Have the place that `registered` experiments name be described by these, as JSON."""
    with here.database() as database:
        database.create()
        database.upsert(ClusterRow("laptop", "slurm", json.dumps({**environments(), **json.loads(text)})))


class TestSlurm(FolderPlaceContract):
    @pytest.fixture(autouse=True)
    def reached(self, slurm: SlurmServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in slurm.variables.items():
            monkeypatch.setenv(name, value)

    @pytest.fixture
    def place(self, here: Lab, slurm: SlurmServer) -> Iterator[Slurm]:
        settings(here)
        place = Slurm()
        place._queue._file = here.root / "queue.json"
        yield place
        slurm.tried("scancel", "--full", "--me")

    def kill(self, lab: Lab, experiment: Experiment) -> None:
        agents = having(str(lab.run_dir(experiment.id)), having("ems.clusters.slurm.head", psutil.process_iter()))
        agents = [agent for agent in agents if agent.name().startswith("python")]
        assert agents
        for agent in agents:
            agent.kill()

    # The queue

    def head(self, slurm: SlurmServer, lab: Lab, experiment: Experiment) -> dict[str, str]:
        """The head's job as `scontrol` shows it."""
        id = Head(lab.run_dir(experiment.id), experiment.id, Queue()).last().id
        return dict(pair.split("=", 1) for pair in slurm.run("scontrol", "show", "job", id).split() if "=" in pair)

    def hurry(self, slurm: SlurmServer, lab: Lab, experiment: Experiment) -> None:
        """A requeued job waits two minutes otherwise."""
        eventually(lambda: self.head(slurm, lab, experiment)["JobState"] == "PENDING")
        slurm.start_soon(self.head(slurm, lab, experiment)["JobId"])

    def test_no_lock_lies_in_the_run_folder_which_nodes_share(self, place, here, slurm):
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        locked = {line.split()[5].rpartition(":")[2] for line in Path("/proc/locks").read_text().splitlines()}
        run_dir = here.run_dir(experiment.id)
        assert not [path for path in run_dir.rglob("*") if str(path.stat().st_ino) in locked]
        own = [path for path in lock_folder(run_dir).iterdir() if str(path.stat().st_ino) in locked]
        assert {path.name for path in own} == {"agent.lock", "job.lock"}
        assert self.finish(place, here, experiment).state is State.SUCCEEDED

    def test_a_preempted_head_goes_on_in_the_same_job(self, place, here, slurm):
        settings(here, '{"partition": ["owners"]}')
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        before = self.head(slurm, here, experiment)
        slurm.run("sbatch", "-p", "group", "--exclusive", "-w", before["NodeList"], "-t", "2", "--wrap", "sleep 1")
        self.hurry(slurm, here, experiment)
        ended = self.finish(place, here, experiment)
        after = self.head(slurm, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 2, ROWS)
        assert (after["JobId"], after["Restarts"]) == (before["JobId"], "1")

    def test_what_was_submitted_though_sbatch_did_not_answer_is_found(self, place, here, slurm, fake, monkeypatch):
        monkeypatch.setattr(queue, "COMMAND_S", 2.0)
        slow = fake("sbatch", 'REAL "$@"; sleep 60')
        experiment = self.prepared(place, here)
        place.ensure_running(here, experiment)
        slow.unlink()
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 1, ROWS)
        assert self.submitted(here, experiment) == 1

    def test_a_queue_that_is_empty_or_away_forgets_no_job(self, place, here, slurm, fake):
        experiment = self.prepared(place, here, wait_s=4)
        place.ensure_running(here, experiment)
        liar = fake("squeue", "exit 0")
        for _ in range(3):
            place._queue._file.unlink(missing_ok=True)
            place.ensure_running(here, experiment)
        liar.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n")
        place._queue._file.unlink(missing_ok=True)
        assert "does not answer" in place.ensure_running(here, experiment)
        liar.unlink()
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 1, ROWS)
        assert self.submitted(here, experiment) == 1

    def test_a_held_job_is_told_and_not_submitted_again(self, place, here, slurm, monkeypatch):
        monkeypatch.setenv("SBATCH_HOLD", "1")  # which is not handed on
        settings(here, '{"sbatch": ["--hold"]}')
        experiment = self.prepared(place, here)
        said = []
        for _ in range(4):
            said.append(place.ensure_running(here, experiment))
            place._queue._file.unlink(missing_ok=True)
        (told,) = filter(None, said)
        assert "is held (JobHeldUser)" in told and "scontrol release" in told
        slurm.run("scontrol", "release", self.head(slurm, here, experiment)["JobId"])
        assert self.finish(place, here, experiment).state is State.SUCCEEDED

    def test_earlier_commands_leave_the_next_one_all_its_tries(self, place, here):
        """As of an experiment that was retried again and again."""
        experiment = self.prepared(place, here)
        head = Head(here.run_dir(experiment.id), experiment.id, Queue())
        head._note(Submission(20, 0.0, "999999"))
        (here.run_dir(experiment.id) / "head-999999.ended").touch()
        assert self.finish(place, here, experiment).state is State.SUCCEEDED
        assert head.last().number == 21

    def test_what_slurm_refuses_is_said_with_its_words(self, place, here):
        settings(here, '{"partition": ["nowhere"]}')
        experiment = self.prepared(place, here)
        with pytest.raises(UserError, match="invalid partition specified: nowhere"):
            place.ensure_running(here, experiment)

    def test_settings_that_slurm_would_not_take_are_refused_before_anything_is_registered(self, place, here, slurm):
        for text, said in [
            ('{"qos": "nope"}', "Slurm refuses the job of the head: .*Invalid qos"),
            ('{"constraint": "nothing"}', "Invalid feature"),
            ('{"account": "other"}', "ems:experiment.cluster.account is 'other', which root may not charge"),
            ('{"partition": ["norml"]}', "ems:experiment.cluster.partition is 'norml', .* did you mean normal"),
            ('{"partition": ["normal"], "hours": 49}', "ems:experiment.cluster.hours is 49: allowed in normal are 48"),
        ]:
            settings(here, text)
            with pytest.raises(UserError, match=f"(?s){said}"):
                place.refuse(here, registered(here).registration)
        settings(here, '{"partition": ["normal", "group"], "hours": 49, "account": "grant"}')
        place.refuse(here, registered(here).registration)
        assert slurm.run("squeue", "-h", "--name=ems-test") == ""

    def test_workers_are_tried_of_what_has_points_and_of_nothing_else(self, place, here, slurm):
        settings(here, '{"workers": 900, "processes_per_job": 800}')
        command = registered(here).registration
        place.refuse(here, command)
        for job in ({"function": "job:f", "propose": "job:p"}, {"command": ["./f"], "sweep": {"x": [1, 2]}}):
            described = json.dumps({**json.loads(command.spec), "job": job})
            with pytest.raises(UserError, match="Slurm refuses the job of the workers"):
                place.refuse(here, dataclasses.replace(command, spec=described))

    def test_a_released_run_keeps_no_password_of_a_package_index_and_is_prepared_again(self, place, here, monkeypatch):
        monkeypatch.setenv("UV_INDEX_LAB_PASSWORD", "hunter2")
        experiment = self.prepared(place, here)
        order = here.run_dir(experiment.id) / of_place.ORDER
        assert "hunter2" in order.read_text() and order.stat().st_mode & 0o077 == 0
        place.release(here, experiment.id)
        assert not order.exists()
        assert self.finish(place, here, experiment).state is State.SUCCEEDED
        assert "hunter2" in order.read_text()

    def test_a_damaged_note_of_a_cost_hinders_no_run(self, place, here):
        experiment = self.prepared(place, here)
        run_dir = here.run_dir(experiment.id)
        for number, text in enumerate(("", "[]", "{}", '{"names": 3}', '{"names": ["a"], "attempt": 1}', "\0")):
            (run_dir / f"cost-{number}.json").write_text(text)
        place.refuse(here, experiment.registration)

    def test_an_sbatch_that_lost_its_answer_is_not_repeated(self, place, here, slurm, fake):
        """As it says itself: the job may have arrived."""
        said = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
        torn = fake("sbatch", f'REAL "$@" >/dev/null; echo "{said}" >&2; exit 1')
        experiment = self.prepared(place, here)
        assert "looked for before" in place.ensure_running(here, experiment)
        torn.unlink()
        assert self.finish(place, here, experiment).state is State.SUCCEEDED
        assert self.submitted(here, experiment) == 1

    def test_a_queue_that_is_full_for_the_user_is_waited_for(self, place, here, slurm):
        settings(here, '{"account": "grant"}')
        modify = ("sacctmgr", "-iQ", "modify", "user", "root", "set")
        slurm.run(*modify, "MaxSubmitJobs=1")
        try:
            other = slurm.run("sbatch", "--parsable", "-A", "grant", "-t", "9", "--wrap", "sleep 500").strip()
            eventually(lambda: slurm.tried("sbatch", "--test-only", "-A", "grant", "--wrap", "true").returncode)
            experiment = self.prepared(place, here)
            place.refuse(here, experiment.registration)
            assert "takes no more jobs of yours for now" in place.ensure_running(here, experiment)
            assert place.ensure_running(here, experiment) == ""
            slurm.run("scancel", other)
            assert self.finish(place, here, experiment).state is State.SUCCEEDED
        finally:
            slurm.run(*modify, "MaxSubmitJobs=-1")

    def test_before_a_maintenance_it_says_how_long_a_job_may_be(self, place, here, slurm):
        settings(here, '{"head": {"hours": 5}}')
        experiment = self.prepared(place, here)
        words = ("user=root", "flags=maint,ignore_jobs", "nodes=ALL", "reservationname=service")
        slurm.run("scontrol", "create", "reservation", "starttime=now+4hours", "duration=60", *words)
        try:
            said = [place.ensure_running(here, experiment)]
            eventually(lambda: said.append(place.ensure_running(here, experiment)) or "maintenance" in said[-1])
            assert "is held for maintenance" in said[-1] and "ask for 3.9 h or less" in said[-1]
            slurm.run(*said[-1].rpartition(": ")[2].split())
            assert self.finish(place, here, experiment).state is State.SUCCEEDED
        finally:
            slurm.run("scontrol", "delete", "reservation", "service")

    def test_a_job_that_waits_long_hears_its_place_in_line_and_when_it_may_start(self, place, here, slurm, monkeypatch):
        monkeypatch.setattr(heads, "FIRST_S", 0.0)
        monkeypatch.setattr(heads, "LATER_LOOK_S", 0.5)
        for _ in range(3):
            slurm.run("sbatch", "-A", "grant", "-p", "normal", "--exclusive", "-t", "9", "--wrap", "sleep 500")
        eventually(lambda: slurm.run("squeue", "-h", "-o", "%t").split() == ["R"] * 3)
        slurm.run("sbatch", "-A", "grant", "-p", "normal", "--exclusive", "-t", "9", "--wrap", "true")
        settings(here, '{"partition": ["normal"]}')
        experiment = self.prepared(place, here)
        said: list[str] = []
        eventually(lambda: said.append(place.ensure_running(here, experiment)) or "in line" in said[-1])
        assert "2 of 2 in line" in said[-1] and ("(Priority)" in said[-1] or "(Resources)" in said[-1])

    def test_nothing_is_gone_while_accounting_is_away_and_the_queue_lies(self, place, here, slurm, fake, monkeypatch):
        monkeypatch.setattr(heads, "LISTED_S", 0.0)
        monkeypatch.setattr(heads, "FIRST_LOOK_S", 0.0)
        experiment = self.prepared(place, here, wait_s=4)
        place.ensure_running(here, experiment)
        lies = [fake("squeue", "exit 0"), fake("sacct", "echo 'Unable to contact slurmdbd' >&2; exit 1")]
        for _ in range(8):
            assert place.ensure_running(here, experiment) == ""
        assert self.submitted(here, experiment) == 1
        self.cancel(slurm, here, experiment)
        eventually(lambda: place.ensure_running(here, experiment) == "" and self.submitted(here, experiment) == 2)
        for lie in lies:
            lie.unlink()
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.rows_stored) == (State.SUCCEEDED, ROWS)

    def test_a_head_that_somebody_cancels_is_followed_by_another(self, place, here, slurm):
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        self.cancel(slurm, here, experiment)
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 2, ROWS)
        eventually(lambda: slurm.run("squeue", "-h") == "")

    def cancel(self, slurm: SlurmServer, lab: Lab, experiment: Experiment) -> None:
        slurm.run("scancel", self.head(slurm, lab, experiment)["JobId"])

    def test_one_query_serves_all_experiments_of_a_user(self, here, slurm, fake, tmp_path, monkeypatch):
        """In two processes, as far as each knows: with a short pause here, of which some go by."""
        monkeypatch.setattr(heads, "FIRST_S", 0.0)
        monkeypatch.setattr(heads, "LATER_LOOK_S", 4.0)
        calls = tmp_path / "calls"
        fake("squeue", f'echo >> {calls}; sleep 0.5; REAL "$@"')
        settings(here, '{"sbatch": ["--hold"]}')
        queues = [Queue(here.root / "queue.json") for _ in range(2)]
        watched = [Head(here.root, name, queues[n % 2]) for n, name in enumerate("abcdef")]
        calls.touch()
        began = time.monotonic()
        with ThreadPoolExecutor(len(watched)) as pool:
            for _ in range(120):
                list(pool.map(Head.job, watched))
                time.sleep(0.1)
        asked = len(calls.read_text())
        assert 2 <= asked <= (time.monotonic() - began) / 4.0 + 1
        assert sum(each.asked for each in queues) == asked

    def test_stopping_cancels_what_waits_and_nothing_else(self, place, here, slurm):
        settings(here, '{"sbatch": ["--hold"]}')
        experiment = self.prepared(place, here)
        place.ensure_running(here, experiment)
        crew = crew_name(experiment.id)
        others = [f"{crew}x", job_name("another"), "mine"]
        for name in (crew, *others):
            slurm.run("sbatch", "-A", "grant", "-J", name, "-t", "9", "--hold", "--array=1-2", "--wrap", "true")
        with here.database() as database:
            database.request_cancel(experiment.id)
        place.dismiss(here, experiment.id)
        assert sorted(slurm.run("squeue", "-h", "-o", "%j").split()) == sorted(others)

    def submitted(self, lab: Lab, experiment: Experiment) -> int:
        return Head(lab.run_dir(experiment.id), experiment.id, Queue()).last().number

    @pytest.fixture
    def fake(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        return partial(faked, tmp_path, monkeypatch)
