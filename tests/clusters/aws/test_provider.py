"""The AWS provider of tests behaves as the real one, to the real engine and the real package."""

from __future__ import annotations

import gc
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi_aws import autoscaling, ec2, iam
from pulumi_aws.provider import Provider

from ems.engine.program import declare
from ems.engine.runner import Pulumi, export, make_ready
from ems.engine.update import update
from ems.lab.telling import Unheard
from tests.clusters.aws import provider_groups
from tests.clusters.aws.cloud import REGION, Cloud, running
from tests.clusters.aws.engine import Stack
from tests.clusters.aws.programs import IMAGE, TAGS, TRUST, everything, group_of, mixed
from tests.clusters.aws.provider import KINDS, attached

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
numbers = itertools.count()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Cloud, int]]:
    with running() as cloud, attached(cloud) as port:
        yield cloud, port
    gc.collect()  # of each program that an engine gave up, Pulumi leaves a coroutine behind


@pytest.fixture
def cloud(served: tuple[Cloud, int]) -> Cloud:
    return served[0]


@pytest.fixture(scope="module")
def empty(served: tuple[Cloud, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Stack.new(tmp_path_factory.mktemp("stacks") / "empty", served[1]).folder


@pytest.fixture
def stack(served: tuple[Cloud, int], empty: Path, tmp_path: Path) -> Stack:
    shutil.copytree(empty, tmp_path / "stack")
    return Stack(tmp_path / "stack", served[1])


@pytest.fixture
def name() -> str:
    return f"ems-{next(numbers)}"


def later(cloud: Cloud) -> str:
    return f"{cloud.now() + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"


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


def test_an_update_of_ems_reaches_this_provider_and_its_own(cloud, served, here, name, monkeypatch):
    def both() -> None:
        iam.Role("role", name=name, assume_role_policy=json.dumps(TRUST))
        declare(here, "lab", pulumi.info)

    monkeypatch.setenv("PULUMI_DEBUG_PROVIDERS", f"aws:{served[1]}")
    engine = Pulumi.of(here)
    make_ready(engine, "lab")
    assert update(engine, "lab", both, Unheard()) is None
    deployment = export(engine, "lab")
    assert deployment and {"aws:iam/role:Role", "ems:index:Project"} <= {
        each["type"] for each in deployment["resources"]
    }
    assert cloud.client("iam").get_role(RoleName=name)


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

    said = stack.preview(program, fails=True)
    assert "Invalid or unknown key. Examine values at 'launchTemplate.idd'" in said
    assert 'The argument "propagate_at_launch" is required' in said and "tags[0].propagateAtLaunch" in said
    assert "expected an integer, but got 'many'" in said


@pytest.mark.parametrize(
    ("token", "inputs", "said"),
    [
        ("autoscaling/group:Group", {"warmPool": {"minSize": 1}}, "does not carry out `warmPool`"),
        ("autoscaling/group:Group", {}, "exactly one of launchTemplate"),
        ("autoscaling/group:Group", {"launchTemplate": {"version": "1"}}, "one of launchTemplate.id and"),
        ("iam/role:Role", {"assumeRolePolicy": "{nonsense"}, '"assumeRolePolicy" contains an invalid JSON policy'),
        ("autoscaling/schedule:Schedule", {"startTime": "tomorrow"}, '"startTime": cannot parse'),
        ("s3/bucket:Bucket", {"tags": ["lab"]}, "expected an object, but got ['lab']"),
        ("ec2/launchTemplate:LaunchTemplate", {"userdata": "x"}, "unknown key. Examine values at 'userdata'"),
    ],
)
def test_what_else_is_refused(token, inputs, said):
    needed = {"autoscaling/group:Group": {"minSize": 0, "maxSize": 1}}
    needed |= {"autoscaling/schedule:Schedule": {"autoscalingGroupName": "a", "scheduledActionName": "b"}}
    _, found = KINDS[f"aws:{token}"].check("x", {}, {**needed.get(token, {}), **inputs})
    assert len(found) == 1 and said in found[0].reason


def test_a_name_that_is_taken_is_an_error_in_the_words_of_the_service(cloud, stack, name):
    first, program = Stack.new(stack.folder / "first", stack.port), everything(name, later(cloud))
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


def test_an_update_that_failed_counts_as_made_until_somebody_looks(cloud, stack, name):
    """As with the real one, also in Pulumi's issue 21458; nobody would like it so."""

    def described(description: str) -> Callable[[], None]:
        def program() -> None:
            iam.Role("role", name=name, description=description, assume_role_policy=json.dumps(TRUST))

        return program

    stack.up(described("one"))
    cloud.trouble("Action=UpdateRole&", "AccessDenied", 403)
    assert f"updating IAM Role ({name}): operation error UpdateRole" in stack.up(described("two"), fails=True)
    stack.up(described("two"))
    assert cloud.client("iam").get_role(RoleName=name)["Role"]["Description"] == "one"
    stack.refresh()
    stack.up(described("two"))
    assert cloud.client("iam").get_role(RoleName=name)["Role"]["Description"] == "two"


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


def test_tags_of_the_provider_are_on_what_takes_them(cloud, stack, name):
    def program() -> None:
        tags = {"tags": {"lab": "here"}}
        provider = Provider("aws", region=REGION, default_tags=tags)
        options = pulumi.ResourceOptions(provider=provider)
        ec2.SecurityGroup("ports", name=name, tags=TAGS, opts=options)

    stack.up(program)
    ports = stack.outputs("ports")
    assert ports["tags"] == TAGS and ports["tagsAll"] == {**TAGS, "lab": "here"}
    (found,) = cloud.client("ec2").describe_security_groups(GroupIds=[stack.id("ports")])["SecurityGroups"]
    assert {each["Key"] for each in found["Tags"]} == {"ems", "lab"} and found["IpPermissionsEgress"] == []
    assert "3 unchanged" in stack.up(program)


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


def test_an_update_leaves_alone_what_is_to_be_ignored(cloud, stack, name):
    ignoring = pulumi.ResourceOptions(ignore_changes=["desiredCapacity", "minSize", "maxSize"])
    stack.up(group_of(name, 0, ignoring))
    cloud.client("autoscaling").set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
    tagged = group_of(name, 0, ignoring, tags=[{"key": "ems", "value": "lab", "propagate_at_launch": True}])
    assert "~ 1 updated" in stack.up(tagged)
    assert len(groups(cloud)[name]["Instances"]) == 2 and groups(cloud)[name]["Tags"][0]["Key"] == "ems"


def test_a_group_of_several_types_in_given_subnets_is_made_once(cloud, stack, name):
    ec2_client = cloud.client("ec2")
    subnets = [each["SubnetId"] for each in ec2_client.describe_subnets()["Subnets"][:2]]

    stack.up(mixed(name, subnets, "AZRebalance"))
    assert "3 unchanged" in stack.up(mixed(name, subnets, "AZRebalance"))
    assert "3 unchanged" in stack.refresh() and "3 unchanged" in stack.up(mixed(name, subnets, "AZRebalance"))
    assert "~ 1 updated" in stack.up(mixed(name, subnets, "ReplaceUnhealthy"))
    (found,) = [group for key, group in groups(cloud).items() if key.startswith("group-")]
    assert [each["ProcessName"] for each in found["SuspendedProcesses"]] == ["ReplaceUnhealthy"]
    assert sorted(found["VPCZoneIdentifier"].split(",")) == sorted(subnets)
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
    assert name not in groups(cloud)


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
    ports = stack.id("ports")
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
    assert stack.id("closes") == "deadline"
    stack.destroy()
    assert name not in groups(cloud)
