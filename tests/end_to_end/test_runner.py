"""Places that nobody reaches from outside: a laptop registers, and a runner in a clone there takes the runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest
import yaml

from ems.cli import scaffold
from ems.engine import install as engine
from tests.clusters.slurm_server import SlurmServer, environments, slurm
from tests.databases.servers import PostgresqlServer
from tests.end_to_end.conftest import User
from tests.end_to_end.slurm_user import ROOT, SlurmUser, experiment_file, use_database
from tests.moto_server import log_in, moto
from tests.processes import having

__all__ = ["moto", "slurm"]
pytestmark = pytest.mark.xdist_group("slurm")
SWEEP = """
import time
def f(n):
    time.sleep(0.05)
    print("computed", n, flush=True)
    return {"value": n}
"""


class Away(SlurmUser):
    """Somebody with a laptop, whose lab has a remote; `there`: the lab's clone at the place."""

    there: User
    kind: dict[str, Any]

    def place(self, **settings: Any) -> None:
        named = {**self.kind, "environments_dir": environments()["environments_dir"], "reach": "runner", **settings}
        said = {key: value for key, value in named.items() if value is not None}
        self.write("stacks/Pulumi.blade.yaml", yaml.safe_dump({"config": {"ems:cluster": said}}))
        self.commit("A place")

    def describe(self, stack: str, job: dict[str, Any], **more: Any) -> None:
        self.write(f"stacks/Pulumi.{stack}.yaml", experiment_file(job, **{"cluster": {"stack": "blade"}, **more}))

    def push(self) -> None:
        self.git("push", "-q", "origin", "HEAD:main")

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.root, check=True)

    def register(self, points: int) -> None:
        """A sweep, of which the clone at the place has not heard."""
        self.write("experiments/e/sweep.py", SWEEP)
        self.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, points, 1]}}})
        self.commit("A sweep")
        self.push()
        self.ems("up", "lab", "blade")
        done = self.ems("up", "s", "--detach")
        assert "ems runner blade" in done.stdout + done.stderr

    def clone(self, folder: Path, user: str) -> User:
        """Of the lab, with a role of the database of its own."""
        subprocess.run(["git", "clone", "-q", self.root.parent / "remote.git", folder], check=True)
        use_database(folder, self.server.url(self.database, user=user))
        (folder / ".ems").mkdir()
        return User(folder)


@pytest.fixture
def user(
    tmp_path: Path, postgresql_server: PostgresqlServer, moto: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Away]:
    engine.ensure()
    log_in(tmp_path, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    urlopen(Request(f"{moto}/lab-store", method="PUT")).close()
    scaffold.init(tmp_path / "lab", "lab")
    shutil.copytree(ROOT / "environments/svd", tmp_path / "lab/environments/svd")
    with postgresql_server.database() as name:
        somebody = Away(tmp_path / "lab")
        somebody.server, somebody.database = postgresql_server, name
        somebody.kind = {"kind": "server", "work_dir": str(tmp_path / "work")}
        use_database(somebody.root, postgresql_server.url(name))
        project = yaml.safe_load((somebody.root / "Pulumi.yaml").read_text())
        project["config"]["ems:store"] = {"value": "s3://lab-store/files"}
        (somebody.root / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        somebody.place()
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / "remote.git"], check=True)
        somebody.git("remote", "add", "origin", str(tmp_path / "remote.git"))
        somebody.push()
        somebody.ems("database", "init")
        postgresql_server.execute(f'CREATE ROLE "{name}_runner" LOGIN IN ROLE "{name}_agent"')
        postgresql_server.execute(f'ALTER ROLE "{name}_runner" SET role = "{name}_agent"')
        somebody.there = somebody.clone(tmp_path / "there", f"{name}_runner")
        yield somebody
        somebody.there.end()
        somebody.end()
        for process in having(str(tmp_path / "work"), psutil.process_iter()):
            process.kill()
    postgresql_server.execute(f'DROP ROLE "{name}_runner"')


def rows(user: Away) -> list[tuple[Any, ...]]:
    return user.asked("SELECT count(*), sum(value) FROM e")


def test_a_run_that_is_registered_elsewhere_is_taken_there(user: Away, tmp_path: Path) -> None:
    user.register(100)
    assert user.asked("SELECT state FROM experiment") == [("registered",)]
    user.there.ems("runner", "blade", "--once")
    user.wait(lambda: user.asked("SELECT state FROM experiment") == [("succeeded",)])
    assert rows(user) == [(100, 5050)]
    assert user.there.ems("logs", "s").stdout.count("computed") == 100
    assert "not on this machine" in user.ems("logs", "s", expect=2).stderr
    said = user.there.ems("runner", "blade", "--once")
    assert "s: succeeded" in said.stdout + said.stderr
    assert list((user.there.root / ".ems/taken/blade").iterdir()) == []
    assert having(str(tmp_path / "work"), psutil.process_iter()) == []
    user.ems("up", "s")
    assert "already computed" in user.ems("up", "s").stdout
    assert json.loads(user.ems("status", "s", "--json").stdout)[0]["state"] == "succeeded"


def test_two_runners_take_a_run_once_and_one_that_is_killed_is_not_missed(user: Away, tmp_path: Path) -> None:
    user.register(400)
    other = user.clone(tmp_path / "other", f"{user.database}_runner")
    runners = [user.there.start("runner", "blade"), other.start("runner", "blade")]
    user.wait(lambda: user.stored() > 20)
    busy = user.there.ems("runner", "blade", "--once", expect=7)
    assert "is at work in this folder" in busy.stderr
    for runner in runners:
        runner.kill()
    watching = user.start("up", "s")
    assert watching.wait() == 0, user.said(watching)
    assert rows(user) == [(400, 80200)]
    assert user.asked("SELECT state, attempt FROM experiment") == [("succeeded", 1)]
    for each in (user.there, other):
        each.ems("runner", "blade", "--once")


def test_a_stopped_run_ends_before_and_after_it_is_taken(user: Away) -> None:
    user.register(40_000)
    user.ems("stop", "s")
    user.there.ems("runner", "blade", "--once")
    assert user.asked("SELECT state, attempt FROM experiment") == [("cancelled", 0)]
    assert "ems runner blade" in user.ems("up", "s", "--retry", "--detach").stdout
    assert "ems runner blade" in user.ems("status", "s").stdout
    user.there.ems("runner", "blade", "--once")
    assert len(list((user.there.root / ".ems/taken/blade").iterdir())) == 1
    user.wait(lambda: user.stored() > 20)
    user.ems("stop", "s")
    assert user.asked("SELECT state, attempt FROM experiment") == [("cancelled", 1)]
    user.there.ems("runner", "blade", "--once")
    assert list((user.there.root / ".ems/taken/blade").iterdir()) == []


def test_what_the_place_refuses_is_the_runs_error_and_may_be_repeated(user: Away) -> None:
    user.place(has={"cores": 1})
    user.register(10)
    user.place(has={"cores": 1}, cores=2)
    user.push()
    user.ems("up", "blade")
    user.there.ems("runner", "blade", "--once")
    ((state, error),) = user.asked("SELECT state, error FROM experiment")
    assert state == "failed"
    assert error == "The run wants 2 cores, of which the server has 1.\nLower `cores` of place or experiment."
    user.place(has={"cores": 1})
    user.push()
    user.ems("up", "blade")
    user.ems("up", "s", "--retry", "--detach")
    user.there.ems("runner", "blade", "--once")
    user.wait(lambda: user.asked("SELECT state FROM experiment") == [("succeeded",)])
    assert rows(user) == [(10, 55)]


def test_a_remote_that_is_away_is_waited_for_and_a_commit_that_is_gone_is_the_runs_error(
    user: Away, tmp_path: Path
) -> None:
    user.register(10)
    remote, away = tmp_path / "remote.git", tmp_path / "away.git"
    remote.rename(away)
    done = user.there.ems("runner", "blade", "--once")
    assert "s: waits: origin cannot be fetched" in done.stdout + done.stderr
    assert user.asked("SELECT state FROM experiment") == [("registered",)]
    away.rename(remote)
    user.git("commit", "--amend", "-qm", "Another one")
    user.git("push", "-qf", "origin", "HEAD:main")
    subprocess.run(["git", "gc", "-q", "--prune=now"], cwd=remote, check=True)
    user.there.ems("runner", "blade", "--once")
    ((state, error),) = user.asked("SELECT state, error FROM experiment")
    assert state == "failed" and error.startswith("origin cannot be fetched")


def test_what_is_not_on_the_remote_or_not_for_a_runner_is_refused(user: Away) -> None:
    user.write("experiments/e/sweep.py", SWEEP)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": [1]}})
    user.commit("Not pushed")
    user.ems("up", "lab", "blade")
    done = user.ems("up", "s", "--detach", expect=3)
    assert "is not on the remote 'origin'" in done.stderr and "git push" in done.stderr
    assert user.asked("SELECT count(*) FROM experiment") == [(0,)]
    assert "no place nowhere" in user.ems("runner", "nowhere", expect=2).stderr
    user.push()
    user.ems("up", "s", "--detach")
    assert "s is an experiment, not a place" in user.ems("runner", "s", expect=2).stderr
    user.place(reach="person")
    assert 'is "person": allowed are runner' in " ".join(user.ems("up", "blade", expect=2).stderr.split())


def test_the_line_for_cron_works_in_a_new_clone(user: Away, tmp_path: Path) -> None:
    user.ems("up", "lab", "blade")
    clone = user.clone(tmp_path / "other", f"{user.database}_runner")
    shutil.rmtree(clone.root / ".ems")
    line = clone.ems("runner", "blade", "--print").stdout
    assert line.startswith("*/5 * * * * cd ")
    subprocess.run(["/bin/sh", "-c", line.removeprefix("*/5 * * * * ")], cwd="/", check=True)
    assert (clone.root / ".ems/runner.log").read_text() == ""


def test_a_slurm_machine_takes_its_runs_by_scrontab(
    user: Away, slurm: SlurmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.kind = {"kind": "slurm", "partition": ["normal"], "account": "grant", **environments()}
    user.place(head={"partition": ["service"]})
    user.register(100)
    for name, text in slurm.variables.items():
        monkeypatch.setenv(name, text)
    user.there.ems("runner", "blade", "--once")
    user.wait(lambda: user.asked("SELECT state FROM experiment") == [("succeeded",)])
    assert rows(user) == [(100, 5050)]
    user.there.ems("runner", "blade", "--once")
    assert slurm.run("squeue", "-h") == ""
    assert user.there.ems("runner", "blade", "--print").stdout.startswith(
        "#SCRON --time=00:10:00 --partition=service\n"
    )
