"""A cloud of AWS, from the command line: the real engine, instances that are machines, a database that they reach."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ems.cli import scaffold
from ems.clusters.aws import plan
from ems.engine import install as engine
from tests.clusters.aws import provider
from tests.clusters.aws.cloud import REGION
from tests.clusters.test_aws import World, world
from tests.end_to_end.slurm_user import SlurmUser, experiment_file, use_database

__all__ = ["world"]
pytestmark = pytest.mark.xdist_group("aws")
COUNTED = "echo n; for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.2; done"


class CloudUser(SlurmUser):
    """Their cloud is the stack `cloud`."""

    world: World

    def place(self, **settings: Any) -> None:
        described = {"kind": "aws", **self.world.settings, **settings}
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

    def group(self, stack: str) -> dict[str, Any] | None:
        """That of a stack's experiment."""
        ((id,),) = self.asked(f"SELECT id FROM experiment WHERE stack = '{stack}'")
        names = [plan.group_of(str(id), plan.HEAD)]
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
        project["config"]["ems:store"] = {"value": f"s3://{world.settings['bucket']}/files"}
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
