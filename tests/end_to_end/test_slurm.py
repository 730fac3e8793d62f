"""A Slurm machine as a stack of its own, and experiments there, through the command line and the real engine."""

from __future__ import annotations

import json

import pytest

from tests.clusters.slurm_server import SlurmServer, slurm
from tests.end_to_end.slurm_user import SlurmUser, user, workers

__all__ = ["slurm", "user"]

pytestmark = pytest.mark.xdist_group("slurm")
SWEEP = """
def f(n, seed):
    return {"value": n * seed}
"""
MEASURED = "SELECT platform FROM run JOIN experiment ON id = experiment_id WHERE stack = 'g'"
NODES = """
import os, sys, time
def f(n):
    time.sleep(0.05)
    sys.stdout.write(f"computed {n}\\n")  # at once, as all workers print into one file
    return {"job": os.environ["SLURM_JOB_ID"]}
"""


def test_a_sweep_a_command_and_a_grid_over_a_program_run_in_jobs(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", cores=2, workers=400, head={"cores": 4})
    user.write("experiments/e/sweep.py", SWEEP)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": [1, 2, 3], "seed": [4, 5]}})
    said = {"results": {"table": "c", "stdout": "csv"}}
    user.describe("c", {"command": ["sh", "-c", 'printf "job\\n$SLURM_JOB_ID\\n"']}, **said)
    said = {"results": {"table": "g", "stdout": "csv"}}
    user.describe("g", {"command": ["sh", "-c", 'printf "m\\n{n}0\\n"'], "sweep": {"n": [1, 2, 3]}}, **said)
    user.commit("A sweep, a command, a grid over a program")
    user.ems("up", "lab", "sherlock")
    user.ems("up", "s", "c", "g")
    assert user.asked("SELECT sum(value), count(*) FROM e") == [(54, 6)]
    assert user.asked("SELECT count(*) FROM c") == [(1,)]
    assert user.asked("SELECT n, m FROM g ORDER BY n") == [(1, 10), (2, 20), (3, 30)]
    measured = [json.loads(text)["measured"]["workers"] for (text,) in user.asked(MEASURED)]
    assert measured[0] in {2, 4, 6}, "as many processes as the head has room for, and those of jobs that came at once"
    assert slurm.run("squeue", "-h") == ""


def test_workers_of_a_sweep_join_from_all_nodes(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(
        partition=["normal"],
        account="grant",
        processes_per_job=2,
        workers=6,
        head={"computes": False},
        usd_per_core_hour=3600,
    )
    user.write("experiments/e/sweep.py", NODES)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, 600, 1]}}})
    said = {"results": {"table": "g", "stdout": "csv"}}
    grid = {"command": ["sh", "-c", 'sleep 0.2; printf "job\n$SLURM_JOB_ID\n"'], "sweep": {"n": {"range": [1, 60, 1]}}}
    user.describe("g", grid, **said)
    user.commit("A sweep, and a grid over a program")
    user.ems("up", "lab", "sherlock")
    user.ems("up", "s")
    user.ems("up", "g")
    jobs = user.asked("SELECT job, count(*) FROM g GROUP BY job")
    assert len(jobs) >= 2 and sum(count for _, count in jobs) == 60
    assert user.asked("SELECT count(*), sum(n) FROM e") == [(600, 180300)]
    jobs = user.asked("SELECT job, count(*) FROM e GROUP BY job")
    assert len(jobs) >= 2 and min(count for _, count in jobs) > 20
    said = user.ems("logs", "s").stdout.splitlines()
    assert sorted(int(line.split()[1]) for line in said if line.startswith("computed")) == list(range(1, 601))
    of_sweep = "SELECT usd, hours FROM charge JOIN experiment ON id = experiment_id WHERE stack = 's'"
    ((usd, hours),) = user.asked(of_sweep)
    assert user.asked("SELECT DISTINCT basis FROM charge") == [("accounting",)]
    assert 3600 * hours < usd < 7 * 3600 * hours + 60
    assert slurm.run("squeue", "-h") == ""


def test_preempted_workers_cost_no_point_and_no_row(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(
        partition=["owners"], account="grant", processes_per_job=4, workers=8,
        head={"computes": False, "partition": ["group"]},
    )  # fmt: skip
    user.write("experiments/e/sweep.py", NODES)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, 1500, 1]}}})
    user.commit("A sweep")
    user.ems("up", "lab", "sherlock")
    running = user.start("up", "s")
    for _ in range(2):
        taken = user.wait(lambda: workers(slurm))
        stored = user.stored()
        user.wait(lambda stored=stored: user.stored() > stored + 50)
        (node,) = {node for job, node in taken[:1]}
        slurm.run("sbatch", "-A", "grant", "-p", "group", "-n1", "-c4", "-w", node, "-t", "2", "--wrap", "sleep 1")
        user.wait(lambda job=taken[0][0]: job not in [job for job, _ in workers(slurm)])
        for job in slurm.run("squeue", "-h", "-r", "-t", "PD", "-o", "%i").split():
            slurm.start_soon(job)
    assert running.wait() == 0, user.said(running)
    assert user.asked("SELECT count(*), sum(n) FROM e") == [(1500, 1125750)]
    assert user.asked("SELECT state, points_failed, attempt FROM experiment") == [("succeeded", 0, 1)]
    assert slurm.run("squeue", "-h") == ""


def test_a_place_says_what_was_found_and_refuses_what_slurm_would(user: SlurmUser) -> None:
    user.ems("up", "lab", "sherlock")
    found = json.loads(user.pulumi("stack", "output", "found", "--json", "--stack", "sherlock"))
    assert found["slurm"].startswith("2") and found["database"] == "reached from a compute node"
    assert found["store"] == "reached from a compute node"
    assert {each["name"]: each["hours"] for each in found["partitions"]}["normal"] == 48
    assert "grant" in found["accounts"] and "other" not in found["accounts"]
    assert found["work_dir"]["free_inodes"] > 0
    for settings, said in [
        ({"partition": ["norml"]}, "ems:cluster.partition is 'norml', which this Slurm has not: did you mean normal?"),
        ({"account": "other"}, "ems:cluster.account is 'other', which root may not charge"),
        ({"partition": ["normal"], "hours": 49}, "ems:cluster.hours is 49: allowed in normal are 48 or less."),
    ]:
        user.place(**settings)
        done = user.ems("up", "sherlock", expect=None)
        assert done.returncode not in {0, 1} and said in done.stderr + done.stdout


def test_a_file_is_no_database_for_a_place_of_other_machines(user: SlurmUser) -> None:
    file = user.root / "Pulumi.yaml"
    file.write_text(file.read_text().replace("postgresql://", "sqlite:///"))
    said = user.ems("up", "sherlock", expect=2).stderr
    assert "machines of kind slurm do not reach" in said and "postgresql://" in said
