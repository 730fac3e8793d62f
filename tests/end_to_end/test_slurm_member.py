"""A member of a group, without rights, on a machine where EMS, Pulumi and Python are installed for all."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ems.base.process import run, uv
from ems.clusters import shipping
from ems.engine import install as engine
from ems.node.environments.recipe import Recipe
from ems.provenance import environment
from tests.clusters.slurm_server import GROUP, USERS, SlurmServer, build, environments, slurm
from tests.databases.servers import PostgresqlServer
from tests.end_to_end.slurm_user import ROOT, experiment_file, place_file, use_database
from tests.processes import PATIENCE_S, eventually

__all__ = ["slurm"]
pytestmark = pytest.mark.xdist_group("slurm")
MEMBER = USERS[0]
LOCKS = (ROOT / "requirements/ems.txt", shipping.LOCK)
SWEEP = """
import os, socket, subprocess, time
import numpy
def f(n):
    time.sleep(0.02)
    said = subprocess.run(["say"], capture_output=True, text=True, check=True).stdout.strip()
    return {"value": float(numpy.sqrt(n)), "said": said, "prefix": os.environ["VIRTUAL_ENV"]}
"""
MODULE = """\
#%Module1.0
prepend-path PATH {folder}/tool
setenv TOOL_SAYS "a word"
"""


class Member:
    """At work in a lab of their own, with the programs of `folder`."""

    def __init__(self, folder: Path, slurm: SlurmServer, name: str = MEMBER) -> None:
        self.folder, self.root, self.person = folder, folder / name / "lab", pwd.getpwnam(name)
        self.root.parent.mkdir()
        shutil.chown(self.root.parent, name, GROUP)
        path = [folder / "venv/bin", folder / "pulumi", "/usr/local/bin", "/usr/bin", "/bin"]
        self.variables = {
            "HOME": self.person.pw_dir, "USER": name, "LOGNAME": name, "LANG": "C.UTF-8",
            "PATH": ":".join(map(str, path)), "SLURM_CONF": slurm.variables["SLURM_CONF"],
        }  # fmt: skip

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        groups = os.getgrouplist(self.person.pw_name, self.person.pw_gid)
        return subprocess.Popen(
            words, user=self.person.pw_uid, group=self.person.pw_gid, extra_groups=groups, env=self.variables,
            cwd=cwd or self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, umask=0o027,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, *words: str, expect: int | None = 0, cwd: Path | None = None) -> str:
        process = self.start(*words, cwd=cwd)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert expect is None or process.returncode == expect, f"{words}: {process.returncode}\n{said}"
        return said

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def commit(self) -> None:
        subprocess.run(["chown", "-R", f"{self.person.pw_name}:{GROUP}", self.root], check=True)
        who = ("-c", "user.name=EMS", "-c", "user.email=ems@localhost")
        self.run("git", "add", "-A")
        self.run("git", *who, "commit", "-qm", "A step")

    def place(self, **settings: Any) -> None:
        text = place_file(partition=["normal"], account="grant", **settings)
        self.write("stacks/Pulumi.sherlock.yaml", text)

    def describe(self, stack: str, job: dict[str, Any], **more: Any) -> None:
        self.write(f"stacks/Pulumi.{stack}.yaml", experiment_file(job, **more))


@pytest.fixture
def member(slurm: SlurmServer, postgresql_server: PostgresqlServer) -> Iterator[tuple[Member, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="ems-member-", dir="/tmp"))
    folder.chmod(0o755)
    python = folder / "venv/bin/python"
    uv("venv", "--quiet", "--python", "/usr/bin/python3", folder / "venv")
    uv("pip", "sync", "--quiet", "--require-hashes", "--python", python, *LOCKS)
    uv("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--python", python, ROOT)
    run(["cp", "-rl", engine.ensure(), folder / "pulumi"])
    tool = folder / "tool/say"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "$TOOL_SAYS"\n')
    tool.chmod(0o755)
    (folder / "modulefiles/tool").mkdir(parents=True)
    (folder / "modulefiles/tool/1.0").write_text(MODULE.format(folder=folder))
    profile = Path(pwd.getpwnam(MEMBER).pw_dir, ".bash_profile")
    profile.write_text(f"module use {folder}/modulefiles\n")
    somebody = Member(folder, slurm)
    somebody.run("ems", "init", "lab", cwd=somebody.root.parent)
    with postgresql_server.database() as name:
        use_database(somebody.root, postgresql_server.url(name))
        yield somebody, lambda sql: postgresql_server.execute(sql, name)
        slurm.tried("scancel", "--full", "-u", ",".join(USERS))
    profile.unlink()
    shutil.rmtree(folder)


def test_a_member_of_a_group_runs_sweep_and_command_with_modules_in_the_groups_archives(member, slurm) -> None:
    user, asked = member
    svd = environment.from_folder(ROOT / "environments/svd")
    build(Recipe("svd", svd.built, svd.python, svd.lock), environments())  # by another, with another Python
    shutil.copytree(ROOT / "environments/svd", user.root / "environments/svd")
    user.write("experiments/e/sweep.py", SWEEP)
    sweep = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, 300, 1]}}}
    user.describe("s", sweep, cluster={"stack": "sherlock", "workers": 6})
    said = {"table": "c", "stdout": "csv"}
    user.describe("c", {"command": ["sh", "-c", "echo said; say"]}, environment="pi", results=said)
    user.place(processes_per_job=2, head={"computes": False}, modules=["tool/2.0"])
    user.commit()
    user.run("ems", "up", "lab")
    assert "'tool/2.0', which cannot be loaded here" in user.run("ems", "up", "sherlock", expect=None)
    user.place(processes_per_job=2, head={"computes": False}, modules=["tool/1.0"])
    user.commit()
    user.run("ems", "up", "sherlock")
    user.run("ems", "up", "s", "c")
    assert asked("SELECT count(*), count(DISTINCT prefix), min(said), max(said) FROM e") == [
        (300, 1, "a word", "a word")
    ]
    assert asked("SELECT said FROM c") == [("a word",)]
    ((platform,),) = set(asked("SELECT platform::json -> 'modules' ->> 0 FROM run"))
    assert platform == "tool/1.0"
    assert slurm.run("squeue", "-h") == ""
    user.describe("d", {"command": ["true"]}, cluster={"stack": "sherlock", "modules": ["nothing/7"]})
    user.commit()
    assert "'nothing/7', which cannot be loaded here" in user.run("ems", "up", "d", expect=2)
    assert asked("SELECT count(*) FROM experiment WHERE stack = 'd'") == [(0,)]


@pytest.mark.drill
def test_two_members_run_the_same_stack_at_once(member, slurm) -> None:
    user, asked = member
    shutil.copytree(ROOT / "environments/svd", user.root / "environments/svd")
    user.write("experiments/e/sweep.py", "import time\ndef f(n):\n    time.sleep(0.1)\n    return {'value': n}\n")
    sweep = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, 400, 1]}}}
    user.describe("s", sweep, cluster={"stack": "sherlock", "workers": 4})
    user.place(processes_per_job=2)
    user.commit()
    other = Member(user.folder, slurm, USERS[1])
    shutil.copytree(user.root, other.root, symlinks=True, ignore=shutil.ignore_patterns(".ems"))
    subprocess.run(["chown", "-R", f"{USERS[1]}:{GROUP}", other.root], check=True)
    for each in (user, other):
        each.run("ems", "up", "lab", "sherlock")
    commands = [each.start("ems", "up", "s") for each in (user, other)]
    for command in commands:
        said, _ = command.communicate(timeout=PATIENCE_S)
        assert command.returncode == 0, said
    assert asked("SELECT count(*), sum(n) FROM e") == [(400, 80200)]
    assert asked("SELECT state, attempt FROM experiment") == [("succeeded", 1)]
    eventually(lambda: slurm.run("squeue", "-h") == "")
