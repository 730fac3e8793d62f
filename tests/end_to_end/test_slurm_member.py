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
from ems.clusters.slurm import environments as of_place
from ems.engine import install as engine
from ems.node.environments.recipe import Recipe
from ems.provenance import environment
from tests.clusters.slurm_server import GROUP, USERS, SlurmServer, build, environments, slurm
from tests.databases.servers import PostgresqlServer
from tests.end_to_end.slurm_user import ROOT, experiment_file, place_file, use_database
from tests.processes import PATIENCE_S

__all__ = ["slurm"]
pytestmark = pytest.mark.xdist_group("slurm")
MEMBER = USERS[0]
LOCKS = (ROOT / "requirements/ems.txt", of_place.LOCK)
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
    """At work in `home`, with the programs of `folder`."""

    def __init__(self, folder: Path, slurm: SlurmServer) -> None:
        self.folder, self.root, self.person = folder, folder / "home/lab", pwd.getpwnam(MEMBER)
        path = [folder / "venv/bin", folder / "pulumi", "/usr/local/bin", "/usr/bin", "/bin"]
        self.variables = {
            "HOME": self.person.pw_dir, "USER": MEMBER, "LOGNAME": MEMBER, "LANG": "C.UTF-8",
            "PATH": ":".join(map(str, path)), "SLURM_CONF": slurm.variables["SLURM_CONF"],
        }  # fmt: skip

    def run(self, *words: str, expect: int | None = 0, cwd: Path | None = None) -> str:
        groups = os.getgrouplist(MEMBER, self.person.pw_gid)
        done = subprocess.run(
            words, user=self.person.pw_uid, group=self.person.pw_gid, extra_groups=groups, env=self.variables,
            cwd=cwd or self.root, capture_output=True, text=True, timeout=PATIENCE_S, check=False, umask=0o027,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert expect is None or done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def commit(self) -> None:
        subprocess.run(["chown", "-R", f"{MEMBER}:{GROUP}", self.root], check=True)
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
    (folder / "home").mkdir()
    shutil.chown(folder / "home", MEMBER, GROUP)
    somebody = Member(folder, slurm)
    somebody.run("ems", "init", "lab", cwd=folder / "home")
    with postgresql_server.database() as name:
        use_database(somebody.root, postgresql_server.url(name))
        yield somebody, lambda sql: postgresql_server.execute(sql, name)
        slurm.tried("scancel", "--full", "-u", MEMBER)
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
