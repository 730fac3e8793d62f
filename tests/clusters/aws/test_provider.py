"""The AWS provider of tests behaves as the real one, to the real engine and the real package."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi_aws import autoscaling, ec2, iam, s3, scheduler
from pulumi_aws.provider import Provider

from tests.clusters.aws import provider_groups
from tests.clusters.aws.cloud import REGION, UNIVERSAL, Cloud, running
from tests.clusters.aws.engine import Stack
from tests.clusters.aws.provider import attached

IMAGE = "ami-12c6146b"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "scheduler.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
MAY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "autoscaling:DeleteAutoScalingGroup", "Resource": "*"}],
}
TAGS = {"ems": "lab"}
numbers = itertools.count()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Cloud, int]]:
    with running() as cloud, attached(cloud) as port:
        yield cloud, port


@pytest.fixture
def cloud(served: tuple[Cloud, int]) -> Cloud:
    return served[0]


@pytest.fixture
def stack(served: tuple[Cloud, int], tmp_path: Path) -> Stack:
    return Stack(tmp_path / "stack", served[1])


@pytest.fixture
def name() -> str:
    return f"ems-{next(numbers)}"


def everything(name: str, when: str) -> Callable[[], None]:
    def program() -> None:
        bucket = s3.Bucket("bucket", bucket=name, force_destroy=True, tags=TAGS)
        s3.BucketPublicAccessBlock("closed", bucket=bucket.bucket, block_public_acls=True, block_public_policy=True)
        rule = {"id": "old", "status": "Enabled", "expiration": {"days": 30}, "filter": {"prefix": "spool/"}}
        s3.BucketLifecycleConfiguration("old", bucket=bucket.bucket, rules=[rule])
        role = iam.Role("role", name=name, assume_role_policy=json.dumps(TRUST, indent=2), tags=TAGS)
        iam.RolePolicy("may", name=name, role=role.name, policy=json.dumps(MAY))
        profile = iam.InstanceProfile("profile", name=name, role=role.name, tags=TAGS)
        everywhere = {"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": ["0.0.0.0/0"]}
        within = {"protocol": "tcp", "from_port": 8786, "to_port": 8786, "self": True, "description": "Dask"}
        ports = ec2.SecurityGroup("ports", name=name, egress=[everywhere], ingress=[within], tags=TAGS)
        template = ec2.LaunchTemplate(
            "template",
            name=name,
            image_id=IMAGE,
            instance_type="t3.micro",
            user_data=base64.b64encode(b"#!/bin/sh\n").decode(),
            iam_instance_profile={"arn": profile.arn},
            vpc_security_group_ids=[ports.id],
            block_device_mappings=[
                {"device_name": "/dev/sda1", "ebs": {"volume_size": 20, "encrypted": "true", "volume_type": "gp3"}}
            ],
            instance_market_options={"market_type": "spot"},
            metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1},
            tag_specifications=[{"resource_type": "instance", "tags": TAGS}],
            tags=TAGS,
        )
        made_from = {"id": template.id, "version": template.latest_version.apply(str)}
        group = autoscaling.Group(
            "group",
            name=name,
            min_size=0,
            max_size=2,
            desired_capacity=0,
            availability_zones=[f"{REGION}a"],
            launch_template=made_from,
            tags=[{"key": "ems", "value": "lab", "propagate_at_launch": True}],
        )
        autoscaling.Schedule(
            "closes",
            autoscaling_group_name=group.name,
            scheduled_action_name="deadline",
            min_size=0,
            max_size=0,
            desired_capacity=0,
            start_time=when,
        )
        scheduler.Schedule(
            "deletes",
            name=name,
            schedule_expression=f"at({when[:-1]})",
            flexible_time_window={"mode": "OFF"},
            action_after_completion="DELETE",
            target={
                "arn": UNIVERSAL,
                "role_arn": role.arn,
                "input": group.name.apply(lambda found: json.dumps({"AutoScalingGroupName": found})),
                "retry_policy": {"maximum_event_age_in_seconds": 3600, "maximum_retry_attempts": 10},
            },
        )

    return program


def later(cloud: Cloud) -> str:
    return f"{cloud.now() + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"


def group_of(
    name: str, size: int | None = None, options: pulumi.ResourceOptions | None = None, **more: Any
) -> Callable[[], None]:
    """A template and a group."""

    def program() -> None:
        template = ec2.LaunchTemplate("template", name=name, image_id=IMAGE, instance_type="t3.micro")
        autoscaling.Group(
            "group",
            **{"name": name, "min_size": 0, "max_size": 3, "availability_zones": [f"{REGION}a"], **more},
            desired_capacity=size,
            launch_template={"id": template.id, "version": "$Latest"},
            opts=options,
        )

    return program


def groups(cloud: Cloud) -> dict[str, dict[str, Any]]:
    found = cloud.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return {each["AutoScalingGroupName"]: each for each in found}


def left(cloud: Cloud) -> dict[str, int]:
    """How many of each there are in the cloud, but for the security groups that are always there."""
    cloud_ec2, cloud_iam, scaling = cloud.client("ec2"), cloud.client("iam"), cloud.client("autoscaling")
    ports = [each for each in cloud_ec2.describe_security_groups()["SecurityGroups"] if each["GroupName"] != "default"]
    return {
        "buckets": len(cloud.client("s3").list_buckets()["Buckets"]),
        "roles": len(cloud_iam.list_roles()["Roles"]),
        "profiles": len(cloud_iam.list_instance_profiles()["InstanceProfiles"]),
        "ports": len(ports),
        "templates": len(cloud_ec2.describe_launch_templates()["LaunchTemplates"]),
        "groups": len(groups(cloud)),
        "actions": len(scaling.describe_scheduled_actions()["ScheduledUpdateGroupActions"]),
        "schedules": len(cloud.client("scheduler").list_schedules()["Schedules"]),
    }


def test_all_types_are_made_once_looked_at_and_deleted(cloud, stack, name):
    before, program = left(cloud), everything(name, later(cloud))
    assert "+ 12 to create" in stack.preview(program) and left(cloud) == before
    assert "+ 12 created" in stack.up(program)
    assert left(cloud) == {key: number + 1 for key, number in before.items()}
    assert "12 unchanged" in stack.up(program)
    assert "12 unchanged" in stack.refresh()
    assert "12 unchanged" in stack.up(program)
    assert "- 12 deleted" in stack.destroy() and left(cloud) == before


# What is refused


def test_inputs_that_the_package_does_not_know_or_misses_are_refused(cloud, stack, name):
    def program() -> None:
        autoscaling.Group(
            "group",
            name=name,
            min_size=0,
            max_size="many",
            launch_template={"idd": "lt-1", "version": "$Latest"},
            tags=[{"key": "ems", "value": "lab"}],
        )
        made_from: Any = {"id": "lt-1"}
        autoscaling.Group("warm", min_size=0, max_size=1, launch_template=made_from, warm_pool={"min_size": 1})
        autoscaling.Group("both", min_size=0, max_size=1)
        iam.Role("role", assume_role_policy="{nonsense")

    said = stack.preview(program, fails=True)
    assert "Invalid or unknown key. Examine values at 'launchTemplate.idd'" in said
    assert 'The argument "propagate_at_launch" is required' in said and "tags[0].propagateAtLaunch" in said
    assert "expected an integer, but got 'many'" in said
    assert "does not carry out `warmPool`" in said
    assert "exactly one of launchTemplate" in said
    assert '"assumeRolePolicy" contains an invalid JSON policy' in said
    assert name not in groups(cloud)


def test_a_name_that_is_taken_is_an_error_in_the_words_of_the_service(cloud, stack, name):
    first, program = Stack(stack.folder / "first", stack.port), everything(name, later(cloud))
    first.up(program)
    there = left(cloud)
    said = stack.up(program, "--continue-on-error", fails=True)
    assert f"creating IAM Role ({name}): operation error CreateRole" in said and "EntityAlreadyExists" in said
    assert "BucketAlreadyExists" in said and "InvalidGroup.Duplicate" in said and left(cloud) == there

    def again() -> None:
        ec2.LaunchTemplate("template", name=name, image_id=IMAGE)
        autoscaling.Group("group", name=name, min_size=0, max_size=0, launch_template={"name": name})

    said = stack.up(again, "--continue-on-error", fails=True)
    assert "InvalidLaunchTemplateName.AlreadyExistsException" in said
    assert f"AlreadyExists: AutoScalingGroup by this name already exists - A group with the name {name}" in said
    stack.destroy()
    first.destroy()


# Changes


def test_what_can_be_changed_is_and_the_rest_replaced(cloud, stack, name):
    def described(description: str, path: str, named: bool) -> Callable[[], None]:
        def program() -> None:
            more = {"name": name} if named else {}
            iam.Role("role", description=description, path=path, assume_role_policy=json.dumps(TRUST), **more)

        return program

    stack.up(described("one", "/a/", named=True))
    reformatted = stack.preview(described("one", "/a/", named=True))
    assert "1 unchanged" in reformatted.replace("2 unchanged", "1 unchanged")
    assert "~ 1 updated" in stack.up(described("two", "/a/", named=True))
    assert cloud.client("iam").get_role(RoleName=name)["Role"]["Description"] == "two"
    assert "+-1 replaced" in stack.up(described("two", "/b/", named=True))
    assert cloud.client("iam").get_role(RoleName=name)["Role"]["Path"] == "/b/"
    stack.up(described("two", "/b/", named=False))
    made_up = stack.outputs("role")["name"]
    assert made_up.startswith("role-") and len(made_up) == len("role-") + 7
    assert "2 unchanged" in stack.up(described("two", "/b/", named=False))
    stack.up(described("two", "/c/", named=False))
    assert stack.outputs("role")["name"] != made_up
    stack.destroy()


def test_a_template_gets_a_version_and_its_group_hears_of_it(cloud, stack, name):
    def of(kind: str) -> Callable[[], None]:
        def program() -> None:
            template = ec2.LaunchTemplate("template", name=name, image_id=IMAGE, instance_type=kind)
            made_from = {"id": template.id, "version": template.latest_version.apply(str)}
            zones = [f"{REGION}a"]
            autoscaling.Group(
                "group", name=name, min_size=0, max_size=1, availability_zones=zones, launch_template=made_from
            )

        return program

    stack.up(of("t3.micro"))
    assert "~ 2 to update" in stack.preview(of("t3.small"))
    assert "~ 2 updated" in stack.up(of("t3.small"))
    assert groups(cloud)[name]["LaunchTemplate"]["Version"] == "2" and stack.outputs("template")["latestVersion"] == 2
    stack.destroy()


def test_tags_of_the_provider_are_on_what_takes_them(cloud, stack, name):
    def program() -> None:
        tags = {"tags": {"lab": "here"}}
        provider = Provider("aws", region=REGION, default_tags=tags)
        options = pulumi.ResourceOptions(provider=provider)
        ec2.SecurityGroup("ports", name=name, tags=TAGS, opts=options)

    stack.up(program)
    ports = stack.outputs("ports")
    assert ports["tags"] == TAGS and ports["tagsAll"] == {**TAGS, "lab": "here"}
    (found,) = cloud.client("ec2").describe_security_groups(GroupIds=[ports["id"]])["SecurityGroups"]
    assert {each["Key"] for each in found["Tags"]} == {"ems", "lab"} and found["IpPermissionsEgress"] == []
    assert "3 unchanged" in stack.up(program)
    stack.destroy()


# Groups


def test_a_group_that_somebody_else_grew_is_seen_and_set_back_unless_that_is_ignored(cloud, stack, name):
    scaling, ignoring = cloud.client("autoscaling"), pulumi.ResourceOptions(ignore_changes=["desiredCapacity"])
    stack.up(group_of(name, 0))
    scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
    assert "3 unchanged" in stack.up(group_of(name, 0))  # nobody looked
    assert "~ 1 updated" in stack.refresh() and stack.outputs("group")["desiredCapacity"] == 2
    assert "3 unchanged" in stack.up(group_of(name, 0, ignoring))
    assert len(groups(cloud)[name]["Instances"]) == 2
    assert "~ 1 updated" in stack.up(group_of(name, 0)) and groups(cloud)[name]["Instances"] == []
    stack.destroy()


def test_an_update_leaves_alone_what_is_to_be_ignored(cloud, stack, name):
    ignoring = pulumi.ResourceOptions(ignore_changes=["desiredCapacity", "minSize", "maxSize"])
    stack.up(group_of(name, 0, ignoring))
    cloud.client("autoscaling").set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
    tagged = group_of(name, 0, ignoring, tags=[{"key": "ems", "value": "lab", "propagate_at_launch": True}])
    assert "~ 1 updated" in stack.up(tagged)
    assert len(groups(cloud)[name]["Instances"]) == 2 and groups(cloud)[name]["Tags"][0]["Key"] == "ems"
    stack.destroy()


@pytest.mark.parametrize("by_force", [True, False])
def test_a_group_with_instances_is_emptied_first_unless_by_force(cloud, stack, name, by_force):
    stack.up(group_of(name, 2, force_delete=by_force))
    assert len(groups(cloud)[name]["Instances"]) == 2
    cloud.trouble("Action=UpdateAutoScalingGroup", "AccessDenied", 403)
    if by_force:
        stack.destroy()
        cloud.troubles.clear()
    else:
        said = stack.destroy(fails=True)
        assert f"deleting Auto Scaling Group ({name}): operation error UpdateAutoScalingGroup" in said
        cloud.trouble("Action=DeleteAutoScalingGroup", "ScalingActivityInProgress", 400, times=2)
        stack.destroy()
    assert name not in groups(cloud) and cloud.instances() == []


def test_a_group_waits_for_its_instances_and_fails_by_what_they_fail_by(cloud, stack, name):
    cloud.sold_out.add("t3.micro")
    said = stack.up(group_of(name, 1), fails=True)
    assert "Failed: Could not launch On-Demand Instances. InsufficientInstanceCapacity" in said
    assert stack.outputs("group")["name"] == name
    stack.destroy()
    stack.up(group_of(name, 1, wait_for_capacity_timeout="0"))
    assert groups(cloud)[name]["Instances"] == []
    stack.destroy()
    waiting = group_of(name, 1, wait_for_capacity_timeout="1s", ignore_failed_scaling_activities=True)
    assert "want at least 1 healthy instance(s) in Auto Scaling Group, have 0" in stack.up(waiting, fails=True)
    cloud.sold_out.clear()
    stack.destroy()


# The service


def test_what_is_in_use_is_tried_for_a_time(cloud, stack, name):
    def program() -> None:
        impatient = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(delete="1s"))
        ec2.SecurityGroup("ports", name=name, opts=impatient)

    stack.up(program)
    ports = stack.outputs("ports")["id"]
    ec2_client = cloud.client("ec2")
    ec2_client.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, SecurityGroupIds=[ports])
    said = stack.destroy(fails=True)
    assert f"deleting Security Group ({ports}): operation error DeleteSecurityGroup" in said
    assert f"api error DependencyViolation: resource {ports} has a dependent object" in said
    ec2_client.terminate_instances(InstanceIds=[each.id for each in cloud.instances()])
    stack.destroy()


def test_a_call_that_is_throttled_is_tried_again_some_times(cloud, stack, name):
    cloud.trouble("Action=CreateLaunchTemplate", "RequestLimitExceeded", 503)
    cloud.trouble("Action=CreateAutoScalingGroup", "Throttling", 400)
    stack.up(group_of(name, 0))
    cloud.trouble("Action=DeleteAutoScalingGroup", "Throttling", 400, times=9)
    assert "api error Throttling: As the test wants it." in stack.destroy(fails=True)
    cloud.troubles.clear()
    stack.destroy()


def test_only_what_the_service_says_is_gone_is_gone(cloud, stack, name):
    stack.up(group_of(name, 0))
    cloud.trouble("Action=DescribeAutoScalingGroups", "AccessDenied", 403)
    assert "api error AccessDenied" in stack.pulumi("refresh", "--yes", "--skip-preview", fails=True)
    assert stack.outputs("group")["name"] == name
    cloud.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=name)
    assert "- 1 deleted" in stack.refresh()
    assert "+ 1 created" in stack.up(group_of(name, 0))
    stack.destroy()


def test_what_is_there_is_imported_by_its_id(cloud, stack, name):
    cloud.client("ec2").create_launch_template(LaunchTemplateName=name, LaunchTemplateData={"ImageId": IMAGE})
    made_from, when = {"LaunchTemplateName": name, "Version": "$Latest"}, cloud.now() + timedelta(hours=1)
    scaling, sizes = cloud.client("autoscaling"), {"MinSize": 0, "MaxSize": 0}
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name, LaunchTemplate=made_from, AvailabilityZones=[f"{REGION}a"], **sizes
    )
    action = {"AutoScalingGroupName": name, "ScheduledActionName": "deadline", "StartTime": when, **sizes}
    scaling.put_scheduled_update_group_action(**action)
    importing = ("import", "--yes", "--skip-preview", "--generate-code=false", "--protect=false")
    stack.pulumi(*importing, "aws:autoscaling/group:Group", "group", name)
    stack.pulumi(*importing, "aws:autoscaling/schedule:Schedule", "closes", f"{name}/deadline")
    assert stack.inputs("group")["launchTemplate"]["version"] == "$Latest"
    assert stack.outputs("closes")["id"] == "deadline"
    stack.destroy()
    assert name not in groups(cloud)


def test_what_an_engine_made_before_it_was_killed_stands_in_the_way(cloud, stack, name, monkeypatch):
    def killed(*_: Any) -> None:
        assert stack.engine
        stack.engine.kill()
        stack.engine.wait()

    with monkeypatch.context() as patch:
        patch.setattr(provider_groups.Group, "complete", killed)
        stack.up(group_of(name, 0), fails=True)
    assert name in groups(cloud)
    stack.pulumi("cancel", "--yes")
    (pending,) = stack.deployment()["pending_operations"]
    assert pending["type"] == "creating" and pending["resource"]["type"] == "aws:autoscaling/group:Group"
    said = stack.up(group_of(name, 0), fails=True)
    assert "api error AlreadyExists" in said
    stack.refresh("--clear-pending-creates")
    assert "api error AlreadyExists" in stack.up(group_of(name, 0), fails=True)
    stack.destroy()
    cloud.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=name)
