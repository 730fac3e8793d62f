"""Instances of the AWS of tests run what they are given, with the identity of their role, and end as instances do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.clusters.aws.cloud import Cloud
from tests.clusters.aws.instances import InstanceHost, Instances, running_with_instances
from tests.clusters.aws.test_cloud import GROUP, group
from tests.processes import eventually

ASK = "curl -s -o /tmp/answer -w '%{http_code}' "
TOKEN = ASK + "-X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token"


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Cloud, Instances]]:
    with running_with_instances() as found:
        yield found


@pytest.fixture
def cloud(both: tuple[Cloud, Instances]) -> Iterator[Cloud]:
    cloud, instances = both
    yield cloud
    autoscaling, ec2 = cloud.client("autoscaling"), cloud.client("ec2")
    for each in autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]:
        autoscaling.delete_auto_scaling_group(AutoScalingGroupName=each["AutoScalingGroupName"], ForceDelete=True)
    for each in ec2.describe_launch_templates()["LaunchTemplates"]:
        ec2.delete_launch_template(LaunchTemplateId=each["LaunchTemplateId"])
    eventually(lambda: not instances.hosts())


@pytest.fixture
def instances(both: tuple[Cloud, Instances], cloud: Cloud) -> Instances:
    return both[1]


def metadata(host: InstanceHost, path: str) -> str:
    """What the service answers to whoever has a token."""
    host.run(TOKEN)
    code = host.run(
        f'token=$(cat /tmp/answer); {ASK} -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/{path}'
    )
    return host.run("cat /tmp/answer") if code == "200" else code


def test_it_runs_its_user_data_and_sees_nothing_of_this_machine_but_the_system(cloud, instances):
    group(cloud, 1, user_data="#!/bin/sh\nid -un > /var/tmp/who; echo $AWS_ENDPOINT_URL >> /var/tmp/who\n")
    (instance,) = cloud.instances()
    host = instances.of(instance)
    eventually(lambda: host.run("cat /var/tmp/who 2>/dev/null || true") == f"root\n{cloud.url}\n")
    assert host.run(
        "ls -A /root; ls -A /home; ls -A /tmp; python3 -c 'import sys; print(sys.version_info >= (3, 11))'"
    ) == ("True\n")
    assert len(host.run("ls /proc | grep -c '^[0-9]'").strip()) == 1  # processes
    assert host.run(f"{ASK} {cloud.url}/moto-api/ || true").strip() != "000"


def test_its_metadata_needs_a_token_and_has_the_credentials_of_its_role(cloud, instances):
    iam = cloud.client("iam")
    trust = {
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]
    }
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=json.dumps(trust))
    iam.create_instance_profile(InstanceProfileName="node")
    iam.add_role_to_instance_profile(InstanceProfileName="node", RoleName="node")
    group(cloud, 1, IamInstanceProfile={"Name": "node"})
    (instance,) = cloud.instances()
    host = instances.of(instance)
    assert host.run(f"{ASK} http://169.254.169.254/latest/meta-data/instance-id") == "401"
    assert metadata(host, "meta-data/instance-id") == instance.id
    assert metadata(host, "meta-data/iam/security-credentials/") == "node"
    found = json.loads(metadata(host, "meta-data/iam/security-credentials/node"))
    assert found["Code"] == "Success" and found["Token"]
    assert metadata(host, "meta-data/spot/instance-action") == "404"
    host.warn()
    assert json.loads(metadata(host, "meta-data/spot/instance-action"))["action"] == "terminate"


@pytest.mark.parametrize("how", ["shutdown -h now", "silently"])
def test_one_that_ends_is_replaced_until_its_group_is_closed(cloud, instances, how):
    group(cloud, 1)
    (first,) = cloud.instances()
    host = instances.of(first)
    if how == "silently":
        cloud.preempt(first)
    else:
        host.run(f"{how} &")
    eventually(lambda: [each.id for each in cloud.instances() if each.id != first.id])
    (second,) = cloud.instances()
    assert instances.of(second).name != host.name
    cloud.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=GROUP, MinSize=0, MaxSize=0, DesiredCapacity=0
    )
    eventually(lambda: not instances.hosts())
    assert cloud.instances() == []
