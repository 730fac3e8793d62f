"""Runs on a Slurm machine that outlast their jobs: time limits, preempted heads, `max_hours`."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.clusters.slurm_server import SlurmServer, faked, slurm
from tests.end_to_end.slurm_user import SlurmUser, head, user
from tests.end_to_end.test_checkpoints import shown, undisturbed
from tests.processes import having

__all__ = ["slurm", "user"]

pytestmark = pytest.mark.xdist_group("slurm")
SLOW = """
import time
def f(n):
    time.sleep(0.5)
    return {"square": n * n}
"""


def describe_program(user: SlurmUser, *, max_hours: float | None = None, pause_s: float, **parameters: int) -> None:
    """The stack `c`: the program that the manual shows, with a pause in each step."""
    pausing = f"        __import__('time').sleep({pause_s})\n        part = "
    user.write("experiments/e/steps.py", shown("python").replace("        part = ", pausing))
    job = {"command": ["python", "experiments/e/steps.py"], "parameters": parameters}
    user.describe("c", job, limits={"max_hours": max_hours})
    user.commit("A program")


def begin(user: SlurmUser, stack: str) -> subprocess.Popen[str]:
    user.ems("up", "lab", "sherlock")
    return user.start("up", stack)


def begin_sweep(user: SlurmUser, points: int) -> subprocess.Popen[str]:
    user.write("experiments/e/sweep.py", SLOW)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, points, 1]}}})
    user.commit("A sweep")
    return begin(user, "s")


def computes(user: SlurmUser, attempt: int) -> None:
    """Wait until this run has stored rows, and saved a checkpoint if it does."""
    user.wait(lambda: user.asked("SELECT state, attempt FROM experiment") == [("running", attempt)])
    ((before,),) = user.asked("SELECT rows_stored FROM experiment")
    user.wait(lambda: user.asked("SELECT rows_stored FROM experiment") > [(before,)])


def is_taken(user: SlurmUser, slurm: SlurmServer, times: int) -> None:
    """Wait until the head was queued again for the `times`-th time, and have it start without the usual two minutes."""
    user.wait(lambda: (job := head(slurm)) and (job["JobState"], job["Restarts"]) == ("PENDING", str(times)))
    assert user.asked("SELECT state, error FROM experiment") == [("lost", "The agent was told to stop (SIGTERM).")]
    id = head(slurm)["JobId"]
    user.wait(lambda: not having(f"slurmstepd: [{id}.", slurm.steps()))  # else it would be started beside itself
    slurm.start_soon(id)


def time_is_up(slurm: SlurmServer) -> None:
    """What Slurm does before a time limit."""
    slurm.run("scancel", "--batch", "--signal=USR1", head(slurm)["JobId"])


def preempt_twice(user: SlurmUser, slurm: SlurmServer) -> None:
    for times in (1, 2):
        computes(user, times)
        node = head(slurm)["NodeList"]
        slurm.run("sbatch", "-A", "grant", "-p", "group", "--exclusive", "-w", node, "-t", "2", "--wrap", "sleep 1")
        is_taken(user, slurm, times)


def assert_swept(user: SlurmUser, slurm: SlurmServer, running: subprocess.Popen[str], points: int) -> None:
    assert running.wait() == 0, user.said(running)
    squares = points * (points + 1) * (2 * points + 1) // 6
    assert user.asked("SELECT count(*), sum(square) FROM e") == [(points, squares)]
    assert user.asked("SELECT state, points_failed FROM experiment") == [("succeeded", 0)]
    assert slurm.run("squeue", "-h") == ""


def assert_undisturbed(user: SlurmUser, slurm: SlurmServer, folder: Path, runs: int, **parameters: int) -> None:
    assert user.asked("SELECT step, pi FROM e ORDER BY point, row") == undisturbed(folder, **parameters)
    assert user.asked("SELECT state, attempt FROM experiment") == [("succeeded", runs)]
    assert list((user.root / ".ems/runs").glob("*/checkpoint*")) == []
    assert slurm.run("squeue", "-h") == ""


def test_a_program_goes_on_after_each_time_limit_in_the_same_job(
    user: SlurmUser, slurm: SlurmServer, tmp_path: Path
) -> None:
    parameters = {"seed": 3, "steps": 600, "points": 60_000}
    describe_program(user, pause_s=0, **parameters)
    running, ids = begin(user, "c"), set()
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
    running = begin(user, "c")
    for times in (1, 2):
        is_taken(user, slurm, times)
    while running.poll() is None:
        job = head(slurm)
        if job.get("JobState") == "PENDING":
            slurm.start_soon(job["JobId"])
        time.sleep(1)
    assert running.returncode == 0, user.said(running)
    ((attempts,),) = user.asked("SELECT attempt FROM experiment")
    assert_undisturbed(user, slurm, tmp_path / "alone", attempts, **parameters)


@pytest.mark.drill
def test_a_sweep_outlasts_two_real_time_limits_of_its_head(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", workers=1, head={"hours": 1 / 30})
    running = begin_sweep(user, 300)
    for times in (1, 2):
        is_taken(user, slurm, times)
    assert_swept(user, slurm, running, 300)


@pytest.mark.drill
def test_a_program_goes_on_after_its_head_was_preempted_twice(
    user: SlurmUser, slurm: SlurmServer, tmp_path: Path
) -> None:
    parameters = {"seed": 5, "steps": 60, "points": 100}
    user.place(partition=["owners"], account="grant", workers=1)
    describe_program(user, pause_s=0.3, **parameters)
    running = begin(user, "c")
    preempt_twice(user, slurm)
    assert running.wait() == 0, user.said(running)
    assert_undisturbed(user, slurm, tmp_path / "alone", 3, **parameters)


@pytest.mark.drill
def test_a_sweep_goes_on_after_its_head_was_preempted_twice(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["owners"], account="grant", workers=1)
    running = begin_sweep(user, 60)
    preempt_twice(user, slurm)
    assert_swept(user, slurm, running, 60)


@pytest.mark.drill
def test_where_jobs_cannot_be_queued_again_another_one_is_submitted(
    user: SlurmUser, slurm: SlurmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(tmp_path, monkeypatch, "scontrol", '[ "$1" = requeue ] && exit 1\nexec REAL "$@"')
    parameters = {"seed": 7, "steps": 60, "points": 100}
    describe_program(user, pause_s=0.3, **parameters)
    running = begin(user, "c")
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
    describe_program(user, max_hours=25 / 3600, pause_s=0.3, **parameters)
    running = begin(user, "c")
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
    describe_program(user, max_hours=1, pause_s=0.3, **parameters)
    user.ems("up", "c")
    assert_undisturbed(user, slurm, tmp_path / "alone", 3, **parameters)
