"""A lab's server as a stack of its own, and experiments there, through the command line and the real engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters.ssh_server import SshServer, started
from tests.databases.servers import PostgresqlServer
from tests.end_to_end.server_user import SLOW, ServerUser, at_work, begin_sweep
from tests.moto_server import moto

__all__ = ["moto"]
pytestmark = pytest.mark.xdist_group("ssh")
SWEEP = """
import pathlib, os
def f(n, seed):
    pathlib.Path(os.environ["EMS_OUTPUT_DIR"], f"{n}-{seed}.txt").write_text(f"{n * seed}")
    print("computed", n, seed, flush=True)
    return {"value": n * seed}
"""
GREEDY = """
import time
def f(n):
    held = b"x" * (2_000_000_000 if n == 3 else 1)
    time.sleep(3 if n == 3 else 0.01)
    return {"value": n}
"""


@pytest.fixture(scope="module")
def ssh() -> Iterator[SshServer]:
    with started() as server:
        yield server


@pytest.fixture
def user(
    tmp_path: Path, ssh: SshServer, postgresql_server: PostgresqlServer, moto: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerUser]:
    with at_work(tmp_path, ssh, postgresql_server, moto, monkeypatch) as somebody:
        yield somebody
    shutil.rmtree(ssh.home / "ems", ignore_errors=True)


def test_a_sweep_and_a_command_run_there_and_nothing_stays_behind(user: ServerUser, tmp_path: Path) -> None:
    user.write("experiments/e/sweep.py", SWEEP)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": [1, 2, 3], "seed": [4, 5]}})
    said = {"results": {"table": "c", "stdout": "csv"}}
    user.describe("c", {"command": ["sh", "-c", 'printf "who,where\\n$(id -un),$(pwd)\\n"']}, **said)
    user.commit("A sweep, a command")
    user.ems("up", "lab", "blade")
    found = json.loads(user.pulumi("stack", "output", "found", "--json", "--stack", "blade"))
    assert found["work_dir"] == f"{user.ssh.home}/ems"
    user.ems("up", "s", "c")
    assert user.asked("SELECT sum(value), count(*) FROM e") == [(54, 6)]
    ((who, where),) = user.asked('SELECT who, "where" FROM c')
    assert (who, where.startswith(f"{user.ssh.home}/ems/runs/")) == (user.ssh.user, True)
    assert user.ems("logs", "s").stdout.count("computed") == 6
    user.ems("outputs", "s", "--to", str(tmp_path / "files"))
    assert sorted(file.read_text() for file in (tmp_path / "files").rglob("*.txt")) == ["10", "12", "15", "4", "5", "8"]
    assert user.ssh.running() == []
    assert "already computed" in user.ems("up", "s").stdout


def test_a_run_outlives_the_laptop_and_is_found_again(user: ServerUser) -> None:
    running = begin_sweep(user, 400)
    running.kill()
    user.ssh.cut()
    user.ems("up", "s")
    assert user.asked("SELECT count(*), sum(n) FROM e") == [(400, 80200)]
    assert user.asked("SELECT state, attempt FROM experiment") == [("succeeded", 1)]
    assert user.ssh.running() == []


@pytest.mark.drill
def test_an_agent_that_is_killed_there_is_followed_by_another(user: ServerUser) -> None:
    running = begin_sweep(user, 400)
    user.ssh.kill_all()
    assert running.wait() == 0, user.said(running)
    assert user.asked("SELECT count(*), sum(n) FROM e") == [(400, 80200)]
    assert user.asked("SELECT state, attempt FROM experiment") == [("succeeded", 2)]


def test_runs_share_the_server_by_the_cores_and_gpus_that_it_has(user: ServerUser) -> None:
    user.place(has={"cores": 2, "gpus": ["0", "GPU-7a"]}, gpus=1)
    said = {"results": {"table": "c", "stdout": "csv"}}
    script = 'b=$(date +%s%N); sleep 3; printf "began,ended,gpu\\n$b,$(date +%s%N),g$CUDA_VISIBLE_DEVICES\\n"'
    user.write("experiments/e/readme.txt", "Commands of the shell need no code.")
    names = ["c1", "c2", "c3", "c4"]
    for number, name in enumerate(names):
        job = {"command": ["sh", "-c", script], "parameters": {"number": number}}
        user.describe(name, job, **said)
    user.describe("large", {"command": ["true"]}, **said, **{"cluster": {"stack": "blade", "cores": 3}})
    user.commit("Commands")
    user.ems("up", "lab", "blade")
    done = user.ems("up", "large", expect=2)
    assert "The run wants 3 cores, of which the server has 2" in done.stderr + done.stdout
    user.ems("up", *names, "--at-once", "4")
    runs = user.asked("SELECT began, ended, gpu FROM c")
    assert len(runs) == 4
    for began, ended, gpu in runs:
        meanwhile = [other for other in runs if other[0] < ended and began < other[1]]
        assert len(meanwhile) <= 2
        assert sorted({gpu for _, _, gpu in meanwhile}) == sorted(gpu for _, _, gpu in meanwhile)
        assert gpu in {"g0", "gGPU-7a"}


def test_a_point_that_takes_more_memory_than_the_runs_share_fails_alone(user: ServerUser) -> None:
    user.write("experiments/e/sweep.py", GREEDY)
    job = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, 20, 1]}}, "max_failures": 1}
    user.describe("s", job, cluster={"stack": "blade", "memory_gb": 1.0})
    user.commit("A sweep")
    user.ems("up", "lab", "blade")
    user.ems("up", "s")
    assert user.asked("SELECT count(*), sum(value) FROM e") == [(19, 207)]
    assert user.asked("SELECT state, points_failed FROM experiment") == [("succeeded", 1)]
    assert '"n": 3' in user.ems("failures", "s", "--json").stdout


def test_a_stopped_run_ends_there(user: ServerUser) -> None:
    begin_sweep(user, 40_000)
    user.ems("stop", "s")
    user.wait(lambda: user.asked("SELECT state FROM experiment") == [("cancelled",)])
    user.wait(lambda: not user.ssh.running())


def test_what_a_server_cannot_have_is_refused_before_anything_is_registered(user: ServerUser) -> None:
    user.write("experiments/e/sweep.py", SLOW)
    user.describe("s", {"function": "experiments.e.sweep:f", "sweep": {"n": [1]}})
    user.commit("A sweep")
    for settings, said in [
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid is not reached"),
        ({"host": "-x"}, "allowed is what `ssh` takes"),
        ({"host": None}, "A server needs `host`"),
        ({"login": "key"}, "allowed are person, unattended"),
        ({"login": "person"}, "Log in: ems login blade"),
    ]:
        user.place(**settings)
        done = user.ems("up", "lab", "blade", expect=None)
        assert done.returncode not in {0, 1} and said in " ".join((done.stderr + done.stdout).split())
    user.place()
    (user.root / "Pulumi.yaml").write_text((user.root / "Pulumi.yaml").read_text().replace("s3://lab-store/files", "x"))
    user.commit("A store of this machine's own")
    done = user.ems("up", "s", expect=2)
    assert "a folder, which machines of kind server do not see" in " ".join((done.stderr + done.stdout).split())
    assert user.asked("SELECT count(*) FROM experiment") == [(0,)]
