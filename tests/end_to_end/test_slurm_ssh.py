"""A laptop that reaches a Slurm machine by SSH alone, through the command line and the real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.clusters.slurm_server import SlurmServer, environments, slurm
from tests.clusters.ssh_server import SshServer, started
from tests.clusters.test_slurm_ssh import know
from tests.end_to_end.slurm_user import SlurmUser
from tests.end_to_end.test_server import ServerUser
from tests.end_to_end.test_server import user as of_server
from tests.moto_server import moto

__all__ = ["moto", "of_server", "slurm"]
pytestmark = pytest.mark.xdist_group("slurm")
CODE = """
import os, pathlib, sys, time
def f(n):
    time.sleep(0.05)
    if n == 7:
        pathlib.Path(os.environ["EMS_OUTPUT_DIR"], "seven.txt").write_text("7")
    sys.stdout.write(f"computed {n}\\n")
    return {"job": os.environ["SLURM_JOB_ID"]}
"""


@pytest.fixture(scope="module")
def ssh(slurm: SlurmServer) -> Iterator[SshServer]:
    with started() as server:
        know(server, slurm)
        yield server


@pytest.fixture
def user(of_server: ServerUser, slurm: SlurmServer) -> Iterator[ServerUser]:
    yield of_server
    slurm.tried("scancel", "--full", "-u", of_server.ssh.user)


def place(user: ServerUser, **settings: Any) -> None:
    named = {
        "kind": "slurm", "host": user.ssh.name, "login": "unattended", "work_dir": "$SCRATCH/ems", "account": "grant",
        "partition": ["normal"], **environments(), **settings,
    }  # fmt: skip
    user.write("stacks/Pulumi.sherlock.yaml", yaml.safe_dump({"config": {"ems:cluster": named}}))


def sweep(user: ServerUser, points: int) -> None:
    user.write("experiments/e/sweep.py", CODE)
    job = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, points, 1]}}}
    SlurmUser.describe(user, "s", job)
    user.commit("A sweep")


def test_a_sweep_has_workers_on_nodes_that_the_laptop_never_sees(user: ServerUser, slurm: SlurmServer) -> None:
    place(user, processes_per_job=2, workers=6, head={"computes": False}, usd_per_core_hour=3600)
    sweep(user, 300)
    user.ems("up", "lab", "sherlock")
    found = json.loads(user.pulumi("stack", "output", "found", "--json", "--stack", "sherlock"))
    assert (found["database"], found["store"]) == ("reached from a compute node", "reached from a compute node"), found
    user.ems("up", "s")
    jobs = user.asked("SELECT job, count(*) FROM e GROUP BY job")
    assert len(jobs) >= 2 and sum(count for _, count in jobs) == 300
    assert user.asked("SELECT sum(n) FROM e") == [(45150,)]
    assert user.asked("SELECT DISTINCT basis FROM charge") == [("accounting",)]
    said = user.ems("logs", "s").stdout.splitlines()
    assert sorted(int(line.split()[1]) for line in said if line.startswith("computed")) == list(range(1, 301))
    user.ems("outputs", "s", "--to", "got")
    assert [file.read_text() for file in (user.root / "got").rglob("seven.txt")] == ["7"]
    assert slurm.run("squeue", "-h") == ""
    assert not list((user.ssh.home / "scratch/ems/runs").glob("*/code")), "what was unpacked is gone"


def test_a_command_that_is_killed_leaves_the_run_to_the_next_one_and_it_can_be_stopped(
    user: ServerUser, slurm: SlurmServer
) -> None:
    place(user)
    sweep(user, 20_000)
    user.ems("up", "lab", "sherlock")
    running = user.start("up", "s")
    user.wait(lambda: slurm.run("squeue", "-h"))
    running.kill()
    running.wait()
    user.ems("up", "s", "--detach")
    assert user.asked("SELECT state, attempt FROM experiment") == [("running", 1)]
    ((id,),) = user.asked("SELECT id FROM experiment")
    assert (
        len(slurm.run("sacct", "-n", "-X", "-P", f"--name=ems-{id}", "-u", user.ssh.user, "-o", "JobID").split()) == 1
    )
    user.ems("stop", "s")
    assert user.asked("SELECT state FROM experiment") == [("cancelled",)]
    user.wait(lambda: slurm.run("squeue", "-h") == "")


def test_where_a_person_logs_in_the_error_names_the_command(user: ServerUser) -> None:
    place(user, login="person")
    sweep(user, 3)
    before = user.ssh.attempts
    user.ems("up", "lab")
    for stack in ("sherlock", "s"):
        done = user.ems("up", stack, expect=None)
        assert done.returncode not in {0, 1}
    assert "Log in: ems login sherlock" in " ".join(user.ems("up", "sherlock", expect=None).stderr.split())
    assert user.ssh.attempts == before
