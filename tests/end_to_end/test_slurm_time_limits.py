"""Runs on a Slurm machine that outlast their jobs: time limits, preempted heads, `max_hours`."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.clusters.slurm_server import SlurmServer, slurm
from tests.end_to_end.slurm_user import SlurmUser, head, user
from tests.end_to_end.test_checkpoints import shown, undisturbed

__all__ = ["slurm", "user"]

pytestmark = pytest.mark.xdist_group("slurm")
SLOW = """
import time
def f(n):
    time.sleep(0.5)
    return {"square": n * n}
"""


def describe_program(
    user: SlurmUser, *, limits: dict[str, float] | None = None, pause_s: float = 0.0, **parameters: int
) -> None:
    """The stack `c`: the program that the manual shows, with a pause in each step."""
    pausing = f"        __import__('time').sleep({pause_s})\n        part = "
    user.write("experiments/e/steps.py", shown("python").replace("        part = ", pausing))
    job = {"command": ["python", "experiments/e/steps.py"], "parameters": parameters}
    user.describe("c", job, **({"limits": limits} if limits else {}))
    user.commit("A program")


def computes(user: SlurmUser, attempt: int) -> None:
    """Wait until this run has stored rows, and saved a checkpoint if it does."""
    user.wait(lambda: user.asked("SELECT state, attempt FROM experiment") == [("running", attempt)])
    ((before,),) = user.asked("SELECT rows_stored FROM experiment")
    user.wait(lambda: user.asked("SELECT rows_stored FROM experiment") > [(before,)])


def is_taken(user: SlurmUser, slurm: SlurmServer, times: int) -> None:
    """Wait until the head was queued again for the `times`-th time, and have it start without the usual two minutes."""
    user.wait(lambda: (job := head(slurm)) and (job["JobState"], job["Restarts"]) == ("PENDING", str(times)))
    assert user.asked("SELECT state, error FROM experiment") == [("lost", "The agent was told to stop (SIGTERM).")]
    slurm.run("scontrol", "update", f"jobid={head(slurm)['JobId']}", "starttime=now")


def time_is_up(slurm: SlurmServer) -> None:
    """What Slurm does before a time limit."""
    slurm.run("scancel", "--batch", "--signal=USR1", head(slurm)["JobId"])


def preempt(slurm: SlurmServer) -> None:
    node = head(slurm)["NodeList"]
    slurm.run("sbatch", "-A", "grant", "-p", "group", "--exclusive", "-w", node, "-t", "2", "--wrap", "sleep 1")


def assert_undisturbed(user: SlurmUser, slurm: SlurmServer, folder: Path, runs: int, **parameters: int) -> None:
    assert user.asked("SELECT step, pi FROM e ORDER BY point, row") == undisturbed(folder, **parameters)
    assert user.asked("SELECT state, attempt FROM experiment") == [("succeeded", runs)]
    assert list((user.root / ".ems/runs").glob("*/checkpoint*")) == []
    assert slurm.run("squeue", "-h") == ""


def test_a_program_goes_on_after_each_time_limit_in_the_same_job(
    user: SlurmUser, slurm: SlurmServer, tmp_path: Path
) -> None:
    parameters = {"seed": 3, "steps": 600, "points": 60_000}
    describe_program(user, **parameters)
    user.ems("up", "lab", "sherlock")
    running, ids = user.start("up", "c"), set()
    for times in (1, 2):
        computes(user, times)
        ids.add(head(slurm)["JobId"])
        time_is_up(slurm)
        user.wait(lambda times=times: user.said(running).count(" is queued (") >= times)
        is_taken(user, slurm, times)
        assert user.asked("SELECT count(*) > 0 FROM e") == [(True,)]  # what it wrote until then
    assert running.wait() == 0, user.said(running)
    assert len(ids) == 1
    assert_undisturbed(user, slurm, tmp_path / "alone", 3, **parameters)


@pytest.mark.drill
def test_a_program_outlasts_two_real_time_limits(user: SlurmUser, slurm: SlurmServer, tmp_path: Path) -> None:
    parameters = {"seed": 4, "steps": 400, "points": 100}
    user.place(partition=["normal"], account="grant", head={"hours": 1 / 30})
    describe_program(user, pause_s=0.5, **parameters)
    user.ems("up", "lab", "sherlock")
    running = user.start("up", "c")
    for times in (1, 2):
        is_taken(user, slurm, times)
    while running.poll() is None:
        job = head(slurm)
        if job.get("JobState") == "PENDING":
            slurm.tried("scontrol", "update", f"jobid={job['JobId']}", "starttime=now")
        time.sleep(1)
    assert running.returncode == 0, user.said(running)
    ((attempts,),) = user.asked("SELECT attempt FROM experiment")
    assert_undisturbed(user, slurm, tmp_path / "alone", attempts, **parameters)


@pytest.mark.drill
def test_a_sweep_outlasts_two_real_time_limits_of_its_head(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", workers=1, head={"hours": 1 / 30})
    user.write("experiments/e/sweep.py", SLOW)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, 300, 1]}}})
    user.commit("A sweep")
    user.ems("up", "lab", "sherlock")
    running = user.start("up", "s")
    for times in (1, 2):
        is_taken(user, slurm, times)
    assert running.wait() == 0, user.said(running)
    assert user.asked("SELECT count(*), sum(square) FROM e") == [(300, 300 * 301 * 601 // 6)]
    assert user.asked("SELECT state, points_failed FROM experiment") == [("succeeded", 0)]
    assert slurm.run("squeue", "-h") == ""


@pytest.mark.drill
def test_a_program_goes_on_after_its_head_was_preempted_twice(
    user: SlurmUser, slurm: SlurmServer, tmp_path: Path
) -> None:
    parameters = {"seed": 5, "steps": 60, "points": 100}
    user.place(partition=["owners"], account="grant", workers=1)
    describe_program(user, pause_s=0.3, **parameters)
    user.ems("up", "lab", "sherlock")
    running = user.start("up", "c")
    for times in (1, 2):
        computes(user, times)
        preempt(slurm)
        is_taken(user, slurm, times)
    assert running.wait() == 0, user.said(running)
    assert_undisturbed(user, slurm, tmp_path / "alone", 3, **parameters)


@pytest.mark.drill
def test_a_sweep_goes_on_after_its_head_was_preempted_twice(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["owners"], account="grant", workers=1)
    user.write("experiments/e/sweep.py", SLOW)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, 60, 1]}}})
    user.commit("A sweep")
    user.ems("up", "lab", "sherlock")
    running = user.start("up", "s")
    for times in (1, 2):
        computes(user, times)
        preempt(slurm)
        is_taken(user, slurm, times)
    assert running.wait() == 0, user.said(running)
    assert user.asked("SELECT count(*), sum(square) FROM e") == [(60, 60 * 61 * 121 // 6)]
    assert slurm.run("squeue", "-h") == ""


@pytest.mark.drill
def test_where_jobs_cannot_be_queued_again_another_one_is_submitted(
    user: SlurmUser, slurm: SlurmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "fake/scontrol"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\n[ "$1" = requeue ] && exit 1\nexec {shutil.which("scontrol")} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    parameters = {"seed": 7, "steps": 60, "points": 100}
    describe_program(user, pause_s=0.3, **parameters)
    user.ems("up", "lab", "sherlock")
    running = user.start("up", "c")
    computes(user, 1)
    first = head(slurm)["JobId"]
    time_is_up(slurm)
    computes(user, 2)
    assert head(slurm)["JobId"] != first
    assert running.wait() == 0, user.said(running)
    assert_undisturbed(user, slurm, tmp_path / "alone", 2, **parameters)


@pytest.mark.drill
def test_hours_that_are_used_up_end_a_run_which_goes_on_once_they_are_raised(
    user: SlurmUser, slurm: SlurmServer, tmp_path: Path
) -> None:
    """They are counted over all jobs of the run, without the time in the queue."""
    parameters = {"seed": 6, "steps": 200, "points": 100}
    describe_program(user, limits={"max_hours": 25 / 3600}, pause_s=0.3, **parameters)
    user.ems("up", "lab", "sherlock")
    running = user.start("up", "c")
    computes(user, 1)
    time_is_up(slurm)
    user.wait(lambda: (job := head(slurm)) and job["JobState"] == "PENDING")
    ((deadline,),) = user.asked("SELECT deadline_at FROM experiment")
    user.wait(lambda: user.asked(f"SELECT now() > '{deadline}'") == [(True,)])
    assert "is queued (BeginTime)" in user.ems("status", "c").stdout
    is_taken(user, slurm, 1)
    computes(user, 2)
    assert running.wait() == 6, user.said(running)
    said = " ".join(user.said(running).split())
    assert "its max_hours, 0.00694444, are used up. Raise `limits: max_hours`, then: ems up c" in said
    (status,) = json.loads(user.ems("status", "c", "--json").stdout)
    assert (status["state"], status["files_left"][0]["name"]) == ("expired", "EMS_CHECKPOINT_DIR/")
    assert slurm.run("squeue", "-h") == ""
    describe_program(user, limits={"max_hours": 1}, pause_s=0.3, **parameters)
    user.ems("up", "c")
    assert_undisturbed(user, slurm, tmp_path / "alone", 3, **parameters)
