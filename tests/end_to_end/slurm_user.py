"""Somebody whose lab has a Slurm machine and a database on a PostgreSQL server, and what they see of its jobs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from ems.cli import scaffold
from ems.engine import install as engine
from tests.clusters.slurm_server import SlurmServer, environments
from tests.databases.servers import PostgresqlServer
from tests.end_to_end.conftest import User

ROOT = Path(__file__).parents[2]


def place_file(**settings: Any) -> str:
    return yaml.safe_dump({"config": {"ems:cluster": {"kind": "slurm", **environments(), **settings}}})


def experiment_file(job: dict[str, Any], **more: Any) -> str:
    described = {
        "project": "first", "experimenter": "me", "funding": "unfunded", "code": {"paths": ["experiments/e"]},
        "environment": "svd", "job": job, "results": {"table": "e"}, "cluster": {"stack": "sherlock"}, **more,
    }  # fmt: skip
    return json.dumps({"config": {"ems:experiment": described}})


def use_database(root: Path, url: str) -> None:
    file = root / "Pulumi.yaml"
    project = yaml.safe_load(file.read_text())
    project["config"]["ems:database"] = {"value": url}
    file.write_text(yaml.safe_dump(project))


class SlurmUser(User):
    """Somebody whose lab has a Slurm machine, `sherlock`, and a database of `server`."""

    server: PostgresqlServer
    database: str

    def place(self, **settings: Any) -> None:
        self.write("stacks/Pulumi.sherlock.yaml", place_file(**settings))
        self.commit("A place")

    def describe(self, stack: str, job: dict[str, Any], **more: Any) -> None:
        self.write(f"stacks/Pulumi.{stack}.yaml", experiment_file(job, **more))

    def stored(self) -> int:
        return sum(count for (count,) in self.asked("SELECT points_done FROM experiment"))

    def asked(self, sql: str) -> list[tuple[Any, ...]]:
        return self.server.execute(sql, self.database)


@contextmanager
def at_work(root: Path, slurm: SlurmServer, server: PostgresqlServer) -> Iterator[SlurmUser]:
    """Somebody with a new lab in `root`, as this user; the environment of this process says how to reach Slurm."""
    engine.ensure()
    scaffold.init(root, "lab")
    shutil.copytree(ROOT / "environments/svd", root / "environments/svd")
    with server.database() as name:
        somebody = SlurmUser(root)
        somebody.server, somebody.database = server, name
        use_database(root, server.url(name))
        somebody.place(partition=["normal"], account="grant")
        yield somebody
        slurm.tried("scancel", "--full", "--me")
        somebody.end()


@pytest.fixture
def user(
    tmp_path: Path, slurm: SlurmServer, postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlurmUser]:
    for name, value in slurm.variables.items():
        monkeypatch.setenv(name, value)
    with at_work(tmp_path / "lab", slurm, postgresql_server) as somebody:
        yield somebody


def workers(slurm: SlurmServer) -> list[tuple[str, str]]:
    """Number and node of the jobs of workers that run."""
    lines = slurm.run("squeue", "-h", "-r", "-t", "R", "-o", "%j %i %N").splitlines()
    return [(id, node) for name, id, node in map(str.split, lines) if name.endswith("-workers")]


def head(slurm: SlurmServer) -> dict[str, str]:
    """The job that leads the run, as `scontrol` shows it; empty if there is none."""
    lines = slurm.run("squeue", "-h", "-o", "%i %j").splitlines()
    ids = [id for id, name in map(str.split, lines) if re.fullmatch(r"ems-[0-9a-f-]{36}", name)]
    shown = slurm.tried("scontrol", "show", "job", ids[0]).stdout if ids else ""
    return dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)
