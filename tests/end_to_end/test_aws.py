"""A cloud of AWS, from the command line: the real engine, instances that are machines, a database that they reach."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ems.cli import scaffold
from ems.clusters.aws import plan
from ems.engine import install as engine
from ems.node.aws.boot import HEAD, WORKERS
from ems.node.environments.recipe import Recipe
from ems.provenance import environment
from tests.clusters.aws import made, provider
from tests.clusters.aws.cloud import REGION
from tests.clusters.slurm_server import build, environments
from tests.clusters.test_aws import World, world
from tests.end_to_end.slurm_user import ROOT, SlurmUser, experiment_file, use_database
from tests.processes import PATIENCE_S

__all__ = ["world"]
pytestmark = pytest.mark.xdist_group("aws")
SWEPT = """\
import os
import socket
import time
from pathlib import Path


def run(n):
    time.sleep(0.3)
    Path(os.environ["EMS_OUTPUT_DIR"], "square.txt").write_text(str(n * n))
    return {"host": socket.gethostname()}
"""
COUNTED = "echo n; for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.2; done"


class CloudUser(SlurmUser):
    """Their cloud is the stack `cloud`."""

    world: World

    def place(self, **settings: Any) -> None:
        said = {"kind": "aws", **self.world.settings, **settings}
        described = {key: value for key, value in said.items() if value is not None}
        self.write("stacks/Pulumi.cloud.yaml", yaml.safe_dump({"config": {"ems:cluster": described}}))
        self.commit("A cloud")

    def describe(self, stack: str, job: dict[str, Any], **more: Any) -> None:
        given = {
            "cluster": {"stack": "cloud"},
            "code": {"paths": ["experiments/pi"]},
            "limits": {"max_hours": 1},
            "environment": "pi",
            "results": {"table": "e", "stdout": "csv"},
            **more,
        }
        self.write(f"stacks/Pulumi.{stack}.yaml", experiment_file(job, **given))
        self.commit(f"The experiment {stack}")

    def group(self, stack: str, role: str = HEAD) -> dict[str, Any] | None:
        """That of a stack's experiment."""
        ((id,),) = self.asked(f"SELECT id FROM experiment WHERE stack = '{stack}'")
        names = [plan.group_of(str(id), role)]
        groups = self.world.cloud.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=names)
        return next(iter(groups["AutoScalingGroups"]), None)

    def assert_nothing_left(self) -> None:
        """In the cloud: no group, no template, no machine."""
        assert self.world.cloud.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []
        assert self.world.cloud.client("ec2").describe_launch_templates()["LaunchTemplates"] == []
        self.wait(lambda: not self.world.instances.hosts())


@pytest.fixture
def user(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudUser]:
    engine.ensure()
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "word", "AWS_DEFAULT_REGION": REGION}
    with provider.attached(world.cloud) as port, world.database.database() as name:
        attached = {"AWS_ENDPOINT_URL": world.cloud.url, "PULUMI_DEBUG_PROVIDERS": f"aws:{port}"}
        for key, text in {**keys, **attached}.items():
            monkeypatch.setenv(key, text)
        scaffold.init(tmp_path / "lab", "lab")
        somebody = CloudUser(tmp_path / "lab")
        somebody.server, somebody.database, somebody.world = world.database, name, world
        use_database(somebody.root, world.database.url(name, host=world.instances.network.address))
        project = yaml.safe_load((somebody.root / "Pulumi.yaml").read_text())
        project["config"]["ems:store"] = {"value": made.STORE}
        (somebody.root / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        somebody.place()
        yield somebody
        somebody.end()
        autoscaling = world.cloud.client("autoscaling")
        for each in autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]:
            autoscaling.delete_auto_scaling_group(AutoScalingGroupName=each["AutoScalingGroupName"], ForceDelete=True)


def test_an_experiment_builds_its_machine_computes_and_leaves_nothing(user: CloudUser) -> None:
    user.describe("e", {"command": ["sh", "-c", COUNTED]})
    user.ems("up", "lab", "cloud")
    done = user.ems("up", "e")
    assert user.asked("SELECT n FROM e ORDER BY n") == [(n,) for n in range(1, 9)]
    assert user.asked("SELECT state, machines FROM experiment") == [("succeeded", 0)]
    assert "✓ e succeeded" in done.stdout, done.stdout
    user.assert_nothing_left()
    assert user.ems("up", "e").stdout == "✓ e already computed (8 rows)\n"
    user.pulumi("preview", "--stack", "e", "--expect-no-changes")


def sweep(user: CloudUser, points: int, **cluster: Any) -> None:
    """The experiment e, each point of which says where it was computed, and leaves a file."""
    shutil.copytree(ROOT / "environments/svd", user.root / "environments/svd")
    svd = environment.from_folder(user.root / "environments/svd")
    build(Recipe("svd", svd.built, svd.python, svd.lock), environments())
    made.archives(user.world.cloud, Path(environments()["environments_dir"]))
    user.write("experiments/e/job.py", SWEPT)
    job = {"function": "experiments.e.job:run", "sweep": {"n": {"range": [1, points, 1]}}}
    more = {"environment": "svd", "results": {"table": "e"}, "code": {"paths": ["experiments/e"]}}
    user.describe("e", job, cluster={"stack": "cloud", **cluster}, **more)
    user.ems("up", "lab", "cloud")


def files(user: CloudUser) -> list[tuple[Any, ...]]:
    return user.asked("SELECT point, name, size FROM output ORDER BY point")


def hosts(user: CloudUser) -> list[tuple[Any, ...]]:
    """Where points were computed."""
    if user.asked("SELECT sum(rows_stored) FROM experiment") in ([(0,)], [(None,)]):
        return []
    return user.asked("SELECT DISTINCT host FROM e")


def test_a_sweep_is_computed_by_several_machines_and_all_files_are_kept(user: CloudUser) -> None:
    sweep(user, 80, machines=1)
    user.ems("up", "e")
    assert user.asked("SELECT n FROM e ORDER BY n") == [(n,) for n in range(1, 81)]
    assert len(hosts(user)) == 2
    assert files(user) == [(n - 1, "square.txt", len(str(n * n))) for n in range(1, 81)]
    user.assert_nothing_left()


def test_a_cloud_is_made_with_its_stack_and_takes_no_more_rights_than_are_told(
    user: CloudUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.place(bucket=None, instance_profile=None, security_groups=None)
    told = json.loads(user.ems("check", "cloud", "--json").stdout)[0]["needs"]
    user.ems("up", "lab", "cloud")
    ((text,),) = user.asked("SELECT settings FROM cluster")
    settings = json.loads(text)
    made.archives(user.world.cloud, Path(environments()["environments_dir"]), settings["bucket"])
    (may,) = [each for each in told if each.startswith("who starts runs may ")]
    said = may.removeprefix("who starts runs may ").replace("BUCKET", settings["bucket"])
    for name, key in made.person(user.world.cloud, said.replace("ROLE", settings["instance_profile"])).items():
        monkeypatch.setenv(name, key)
    user.describe("e", {"command": ["sh", "-c", COUNTED]})
    user.ems("up", "e")
    assert user.asked("SELECT n FROM e ORDER BY n") == [(n,) for n in range(1, 9)]
    user.assert_nothing_left()
    user.pulumi("preview", "--stack", "cloud", "--expect-no-changes")


@pytest.mark.drill
@pytest.mark.parametrize("lost", ["a worker", "a worker, silently", "the head"])
def test_a_machine_that_is_lost_costs_no_row(user: CloudUser, lost: str) -> None:
    sweep(user, 300, machines=1)
    command = user.start("up", "e")
    user.wait(lambda: len(hosts(user)) == 2)
    name = HEAD if lost == "the head" else WORKERS
    (found,) = (user.group("e", name) or {})["Instances"]
    (instance,) = [each for each in user.world.cloud.instances() if each.id == found["InstanceId"]]
    if "silently" in lost:
        user.world.instances.of(instance).cut()
    user.world.cloud.preempt(instance)
    assert command.wait(PATIENCE_S) == 0
    assert user.asked("SELECT n FROM e ORDER BY n") == [(n,) for n in range(1, 301)]
    if name == WORKERS:
        assert user.asked("SELECT attempt FROM run") == [(1,)]
        assert len(files(user)) == 300
    user.assert_nothing_left()


@pytest.mark.drill
def test_a_command_that_is_killed_leaves_the_run_to_the_cloud_and_the_next_one_only_deletes(user: CloudUser) -> None:
    user.describe("e", {"command": ["sh", "-c", COUNTED]})
    user.ems("up", "lab", "cloud")
    command = user.start("up", "e")
    user.wait(lambda: user.asked("SELECT count(*) FROM experiment WHERE state = 'running'") == [(1,)])
    os.killpg(command.pid, signal.SIGKILL)
    for process in user.updates():
        process.kill()
    user.wait(lambda: user.asked("SELECT state FROM experiment") == [("succeeded",)])
    user.wait(lambda: (user.group("e") or {}).get("DesiredCapacity") == 0)
    user.wait(lambda: not user.world.instances.hosts())
    user.ems("up", "e")
    assert user.asked("SELECT n FROM e ORDER BY n") == [(n,) for n in range(1, 9)]
    assert user.asked("SELECT attempt FROM run") == [(1,)]
    user.assert_nothing_left()


@pytest.mark.drill
def test_plain_pulumi_builds_it_runs_it_and_deletes_it(user: CloudUser) -> None:
    user.describe("e", {"command": ["sh", "-c", COUNTED]})
    user.ems("up", "lab", "cloud")
    user.pulumi("stack", "init", "e")
    up = ("up", "--stack", "e", "--yes", "--skip-preview")
    user.pulumi(*up)
    assert user.asked("SELECT state, rows_stored FROM experiment") == [("succeeded", 8)]
    user.pulumi("refresh", "--stack", "e", "--yes", "--skip-preview")
    user.pulumi(*up)
    user.assert_nothing_left()
    user.pulumi("destroy", "--stack", "e", "--yes", "--skip-preview")
