"""What becomes of jobs on a Slurm machine, with a real one: minutes each, as root: `make drill` runs them.

Each ends in the rows of an undisturbed run, or in one clear error, and nothing is left in the queue.
"""

from __future__ import annotations

import random
import subprocess
import time
from itertools import pairwise

import pytest

from ems.clusters.slurm.heads import crew_name
from tests.clusters.slurm_server import CPUS, SlurmServer, slurm
from tests.end_to_end.slurm_sweep import Sweep, show
from tests.end_to_end.slurm_user import SlurmUser, head, user, workers
from tests.processes import PATIENCE_S, eventually

__all__ = ["slurm", "user"]
pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.timeout(1800)]


def take(slurm: SlurmServer, node: str) -> str:
    """Have a job of a higher partition take all of a node for a moment; its number."""
    options = ("-A", "grant", "-p", "group", "-n1", f"-c{CPUS}", "-w", node, "-t", "2")
    return slurm.run("sbatch", "--parsable", *options, "--wrap", "sleep 0.5").strip()


def test_two_thousand_points_are_computed_on_three_nodes(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=12, head={"computes": False})
    sweep = Sweep(user, slurm, 2000, 0.02)
    nodes: set[str] = set()
    command = sweep.begin()
    while command.poll() is None:
        nodes |= {node for _, node in workers(slurm)}
        time.sleep(0.2)
    sweep.finish(command)
    sweep.assert_whole()
    assert len(nodes) in {2, 3}, "12 processes need two nodes"


def test_fifty_preemptions_of_workers_and_heads_lose_and_double_nothing(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["owners"], account="grant", processes_per_job=4, workers=9, sbatch=["--exclusive"])
    sweep = Sweep(user, slurm, 8000, 0.1)
    command = sweep.begin()
    chosen, heads = random.Random(15), 0
    for _ in range(50):
        user.wait(lambda: sweep.hurry() or slurm.run("squeue", "-h", "-p", "owners", "-t", "R"))
        if command.poll() is not None:
            break
        running = slurm.run("squeue", "-h", "-r", "-p", "owners", "-t", "R", "-o", "%N").split()
        node = chosen.choice(running)
        heads += head(slurm).get("NodeList") == node
        taker = take(slurm, node)
        user.wait(lambda taker=taker: taker not in slurm.run("squeue", "-h", "-o", "%i").split())
        time.sleep(chosen.random() * 2)
    assert command.poll() is None, "it ended before it was preempted 50 times"
    sweep.finish(command)
    show(f"{heads} of them took the head")
    sweep.assert_whole(attempts=None, recomputed=sweep.points // 2)


KILLED = {
    "agent": ("ems.clusters.slurm.head",),
    "driver": ("ems.node.driver.driver",),
    "worker": ("ems.node.driver.joining",),
    "worker process": ("ems.node.driver.worker ",),
}


@pytest.mark.parametrize("who", ["slurmd of workers", "slurmd of the head", *KILLED, "ems up"])
def test_kill_9(user: SlurmUser, slurm: SlurmServer, who: str) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4, head={"computes": False})
    sweep = Sweep(user, slurm, 500, 0.1)
    command = sweep.begin()
    user.wait(lambda: workers(slurm))
    sweep.computes(10)
    if who.startswith("slurmd"):
        node = head(slurm)["NodeList"] if "head" in who else workers(slurm)[0][1]
        slurm.kill_node(node)
        slurm.start_node(node)
    elif who == "ems up":
        command.kill()
        command.wait()
        command = user.start("up", "s")
    else:
        sweep.processes(*KILLED[who])[0].kill()
    if who == "driver":  # as where memory runs out: the run fails, and says so
        assert command.wait(PATIENCE_S) != 0 and "driver: killed by signal 9 (SIGKILL)" in user.said(command)
        command = user.start("up", "s", "--retry")
    sweep.finish(command)
    sweep.assert_whole(attempts=None, recomputed=sweep.points // 2)


@pytest.mark.parametrize("whose", ["head", "workers", "all"])
def test_jobs_that_somebody_cancels_are_replaced(user: SlurmUser, slurm: SlurmServer, whose: str) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4, head={"computes": False})
    sweep = Sweep(user, slurm, 400, 0.1)
    command = sweep.begin()
    leader = head(slurm)["JobId"]
    ids = [id for id, _ in workers(slurm)]
    slurm.run("scancel", *{"head": [leader], "workers": ids, "all": [leader, *ids]}[whose])
    sweep.finish(command)
    sweep.assert_whole(attempts=None, recomputed=sweep.points // 2)


def test_workers_that_slurm_has_no_room_for_come_in_smaller_numbers(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=1, workers=8, head={"computes": False})
    sweep = Sweep(user, slurm, 300, 0.2)
    sweep.described()
    modify = ("sacctmgr", "-iQ", "modify", "user", "root", "set")
    slurm.run(*modify, "MaxSubmitJobs=4")
    try:
        command = user.start("up", "s")
        user.wait(lambda: len(workers(slurm)) >= 2)
        sweep.finish(command)
        sweep.assert_whole()
    finally:
        slurm.run(*modify, "MaxSubmitJobs=-1")


def test_five_hundred_workers_are_declared_and_as_many_come_as_there_is_room_for(
    user: SlurmUser, slurm: SlurmServer
) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, cores=2, workers=500)
    sweep = Sweep(user, slurm, 3000, 0.02)
    command = sweep.begin()
    sweep.finish(command)
    sweep.assert_whole()


GPU = """
import os, time
def f(n):
    began = time.time()
    time.sleep(0.3)
    return {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "began": began, "ended": time.time()}
"""


def test_two_gpus_are_shared_by_three_runs(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", gpus=1, workers=1)
    user.write("experiments/e/sweep.py", GPU)
    stacks = ["a", "b", "c"]
    for number, stack in enumerate(stacks):
        own = {"range": [100 * number, 100 * number + 30, 1]}  # a point of another run would be copied, with its times
        user.describe(stack, {"function": "experiments.e.sweep:f", "sweep": {"n": own}})
    user.commit("Three runs")
    user.ems("up", "lab", "sherlock")
    user.ems("up", *stacks)
    found = user.asked("SELECT gpu, began, ended FROM e ORDER BY began")
    assert len(found) == 3 * 31 and {gpu for gpu, *_ in found} == {"0", "1"}
    for gpu in "01":
        times = [(began, ended) for here, began, ended in found if here == gpu]
        assert all(ended <= began for (_, ended), (began, _) in pairwise(times)), "a GPU was given twice"
    assert slurm.run("squeue", "-h") == ""


def test_two_clones_of_a_lab_run_the_same_stack_at_once(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4)
    sweep = Sweep(user, slurm, 400, 0.1)
    sweep.described()
    subprocess.run(["git", "clone", "-q", user.root, user.root.with_name("clone")], check=True)
    other = SlurmUser(user.root.with_name("clone"))
    try:
        other.ems("up", "lab", "sherlock")
        commands = [user.start("up", "s"), other.start("up", "s")]
        assert commands[1].wait(PATIENCE_S) == 0, other.said(commands[1])
        sweep.finish(commands[0])
        sweep.assert_whole()
        assert user.asked("SELECT count(*) FROM run") == [(1,)]
    finally:
        other.end()


def test_stopping_a_run_cancels_its_jobs_and_no_others(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=4, workers=60)
    sweep = Sweep(user, slurm, 5000, 0.2)
    command = sweep.begin()
    user.wait(lambda: slurm.run("squeue", "-h", "-t", "PD", "-o", "%i"))
    slurm.run("sbatch", "-A", "grant", "-J", "mine", "-p", "normal", "-t", "9", "--wrap", "sleep 500")
    user.ems("stop", "s")
    command.wait(PATIENCE_S)
    eventually(lambda: slurm.run("squeue", "-h", "-o", "%j").split() == ["mine"])
    assert user.asked("SELECT state FROM experiment") == [("cancelled",)]


def test_no_more_workers_come_than_there_are_points_to_compute(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=1, workers=20, head={"computes": False})
    sweep = Sweep(user, slurm, 8, 5)
    job = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, 100, 1]}}}
    user.describe("s", {**job, "exclude": ["n > 8"]})
    user.commit("A sweep")
    user.ems("up", "lab", "sherlock")
    user.ems("up", "s")
    sweep.assert_whole()
    ((experiment,),) = user.asked("SELECT id FROM experiment")
    found = slurm.run("sacct", "-n", "-X", "-P", "-S", "today", "--name", crew_name(experiment), "-o", "JobID")
    assert len(set(found.split())) == 8
