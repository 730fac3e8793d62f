"""A lab on SQLite and a server far away, through the command line and the real engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ems.cli import scaffold
from ems.clusters.openssh import Host
from ems.engine import install as engine
from tests.clusters.ssh_server import SshServer, client, started
from tests.end_to_end.conftest import User
from tests.end_to_end.server_user import SLOW, ServerUser
from tests.end_to_end.slurm_user import ROOT

pytestmark = pytest.mark.xdist_group("ssh")


LEAVES = """
import os, pathlib
def f(n):
    pathlib.Path(os.environ["EMS_OUTPUT_DIR"], "note.txt").write_text(str(n))
    return {"value": n}
"""


class FarUser(ServerUser):
    """Somebody whose database is a file on their laptop."""

    def asked(self, sql: str) -> list[tuple[Any, ...]]:
        return User.query(self, sql)

    def sweep(self, points: int, propose: str = "", code: str = SLOW, **more: Any) -> None:
        self.write("experiments/e/sweep.py", code)
        job = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, points, 1]}}}
        job |= {"propose": propose} if propose else {}
        self.describe("s", job, cluster={"stack": "blade", "workers": 1}, **more)
        self.commit("A sweep")
        self.ems("up", "lab", "blade")

    def outbox(self) -> list[Path]:
        return [*self.ssh.home.glob("ems/runs/*/mailbox/outbox/*")]


@pytest.fixture(scope="module")
def ssh() -> Iterator[SshServer]:
    with started() as server:
        yield server


@pytest.fixture
def user(tmp_path: Path, ssh: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarUser]:
    engine.ensure()
    monkeypatch.setenv("PATH", client(ssh)["PATH"])
    scaffold.init(tmp_path / "lab", "lab")
    shutil.copytree(ROOT / "environments/svd", tmp_path / "lab/environments/svd")
    somebody = FarUser(tmp_path / "lab")
    somebody.ssh = ssh
    somebody.place()
    yield somebody
    somebody.end()
    ssh.kill_all()
    Host(ssh.name, "", unattended=True).log_out()
    shutil.rmtree(ssh.home / "ems", ignore_errors=True)


def test_a_sweep_there_fills_the_database_here(user: FarUser) -> None:
    user.sweep(30)
    user.ems("up", "s")
    assert user.asked("SELECT count(*), sum(value) FROM e") == [(30, 465)]
    assert user.state("s") == "succeeded"
    assert user.outbox() == []
    assert json.loads(user.ems("sync", "--json").stdout) == []


def test_files_come_with_the_rows_and_a_sweep_that_grew_computes_only_what_is_new(user: FarUser) -> None:
    user.sweep(5, code=LEAVES)
    user.ems("up", "s")
    user.sweep(7, code=LEAVES)
    user.ems("up", "s")
    assert user.asked("SELECT count(*) FROM e") == [(12,)]
    assert user.asked("SELECT first_point, last_point FROM copied") == [(0, 4)]
    user.ems("outputs", "s", "--to", "here")
    found = {path.parent.name: path.read_text() for path in (user.root / "here").rglob("note.txt")}
    assert found == {f"point-{n}": str(n + 1) for n in range(7)}
    assert not [*user.ssh.home.glob("ems/runs/*/mailbox/store/??/*")]


def test_a_run_goes_on_while_nobody_looks_and_is_stopped_from_here(user: FarUser) -> None:
    user.sweep(2_000)
    user.ems("up", "s", "--detach")
    (first,) = json.loads(user.ems("sync", "--json").stdout)
    assert (first["state"], first["error"]) == ("running", "")
    user.wait(lambda: len(user.outbox()) > 2)
    (then,) = json.loads(user.ems("sync", "s", "--json").stdout)
    assert then["batches"] > 2 and then["bytes"] > 0
    assert user.stored() > first["batches"]
    user.ems("stop", "s")
    assert user.state("s") == "cancelled"
    done = user.asked("SELECT points_done FROM experiment WHERE stack = 's'")
    assert user.asked("SELECT count(*) FROM e") == done
    assert user.outbox() == []


def test_what_needs_a_database_there_is_refused_before_anything_is_registered(user: FarUser) -> None:
    user.sweep(3, propose="experiments.e.sweep:f", limits={"max_rounds": 2})
    done = user.ems("up", "s", expect=2)
    said = " ".join((done.stderr + done.stdout).split())
    assert "`job: propose` of s needs a database that its place reaches" in said
    assert user.asked("SELECT count(*) FROM experiment") == [(0,)]
