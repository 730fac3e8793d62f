"""The AWS of tests does and refuses what AWS does and refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.clusters.aws import made
from tests.clusters.aws.cloud import REGION, UNIVERSAL, Cloud, running
from tests.processes import eventually

GROUP = "ems-head-5f0c"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running() as found:
        yield found


def template(cloud: Cloud, user_data: str = "#!/bin/sh\n", **more: object) -> str:
    encoded = base64.b64encode(user_data.encode()).decode()
    said = {"ImageId": "ami-12c6146b", "InstanceType": "t3.micro", "UserData": encoded, **more}
    made = cloud.client("ec2").create_launch_template(LaunchTemplateName="ems-head", LaunchTemplateData=said)
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def group(cloud: Cloud, size: int = 0, most: int = 2, **more: object) -> None:
    cloud.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=GROUP,
        LaunchTemplate={"LaunchTemplateId": template(cloud, **more), "Version": "$Latest"},
        MinSize=0,
        MaxSize=most,
        DesiredCapacity=size,
        AvailabilityZones=["us-east-1a"],
    )


def refused(call: str, cloud: Cloud, service: str = "autoscaling", **words: object) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        getattr(cloud.client(service), call)(**words)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def sizes(cloud: Cloud) -> list[int]:
    found = cloud.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return [len(each["Instances"]) for each in found]


# Groups


def test_a_group_of_the_same_name_is_refused(cloud):
    group(cloud)
    code, _ = refused(
        "create_auto_scaling_group",
        cloud,
        AutoScalingGroupName=GROUP,
        LaunchTemplate={"LaunchTemplateName": "ems-head"},
        MinSize=0,
        MaxSize=1,
        AvailabilityZones=["us-east-1a"],
    )
    assert code == "AlreadyExists"


def test_more_than_the_largest_size_is_refused(cloud):
    group(cloud)
    code, said = refused("set_desired_capacity", cloud, AutoScalingGroupName=GROUP, DesiredCapacity=3)
    assert (code, "above max value 2" in said) == ("ValidationError", True)
    code, _ = refused("update_auto_scaling_group", cloud, AutoScalingGroupName=GROUP, DesiredCapacity=3)
    assert code == "ValidationError" and sizes(cloud) == [0]


def test_a_group_with_instances_is_deleted_by_force_only(cloud):
    group(cloud, 1)
    assert refused("delete_auto_scaling_group", cloud, AutoScalingGroupName=GROUP)[0] == "ResourceInUse"
    cloud.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=GROUP, ForceDelete=True)
    assert sizes(cloud) == [] and cloud.instances() == []


def test_instances_begin_and_end_with_the_size_and_are_replaced(cloud):
    heard = []
    cloud.began = lambda instance: heard.append(("began", instance.id))
    cloud.ended = lambda instance: heard.append(("ended", instance.id))
    group(cloud)
    assert heard == []
    cloud.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    (first,) = cloud.instances()
    cloud.preempt(first)
    (second,) = cloud.instances()
    cloud.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=0)
    assert {("began", first.id), ("ended", first.id), ("began", second.id), ("ended", second.id)} == set(heard)
    assert len(heard) == 4 and cloud.instances() == []


def test_instances_of_a_group_have_what_the_template_says(cloud):
    options = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    group(cloud, 1, MetadataOptions=options, InstanceMarketOptions={"MarketType": "spot"})
    ((found,),) = [each["Instances"] for each in cloud.client("ec2").describe_instances()["Reservations"]]
    assert found["MetadataOptions"]["HttpTokens"] == "required" and found["InstanceLifecycle"] == "spot"


def test_a_template_with_too_much_user_data_is_refused(cloud):
    template(cloud, "x" * 16_384)
    encoded = base64.b64encode(b"x" * 16_385).decode()
    said = {"LaunchTemplateName": "larger", "LaunchTemplateData": {"UserData": encoded}}
    assert refused("create_launch_template", cloud, "ec2", **said)[0] == "InvalidUserData.Malformed"


def test_a_security_group_that_is_used_is_not_deleted(cloud):
    ec2 = cloud.client("ec2")
    found = ec2.create_security_group(GroupName="ems", Description="x")["GroupId"]
    group(cloud, 1, SecurityGroupIds=[found])
    assert refused("delete_security_group", cloud, "ec2", GroupId=found)[0] == "DependencyViolation"
    cloud.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=0)
    ec2.delete_security_group(GroupId=found)


def test_a_type_that_is_sold_out_is_tried_again_and_told(cloud):
    cloud.sold_out.add("t3.micro")
    group(cloud, 1)
    told = cloud.client("autoscaling").describe_scaling_activities(AutoScalingGroupName=GROUP)["Activities"]
    assert told[0]["StatusCode"] == "Failed" and "InsufficientInstanceCapacity" in told[0]["StatusMessage"]
    assert sizes(cloud) == [0]
    cloud.sold_out.clear()
    eventually(lambda: sizes(cloud) == [1])
    told = cloud.client("autoscaling").describe_scaling_activities(AutoScalingGroupName=GROUP)["Activities"]
    assert told[0]["StatusCode"] == "Successful"


@pytest.mark.parametrize(("code", "status"), [("Throttling", 400), ("ServiceUnavailable", 503)])
def test_a_call_in_trouble_does_nothing_and_is_tried_again_by_the_client(cloud, code, status):
    group(cloud)
    cloud.trouble("Action=SetDesiredCapacity", code, status)
    cloud.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    assert sizes(cloud) == [1]
    cloud.trouble("Action=DescribeLaunchTemplates", "UnauthorizedOperation", 403)
    assert refused("describe_launch_templates", cloud, "ec2")[0] == "UnauthorizedOperation"


# Deadlines


def close_at(cloud: Cloud, seconds: float) -> dict[str, object]:
    when = cloud.now() + timedelta(seconds=seconds)
    sizes = {"MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
    return {"AutoScalingGroupName": GROUP, "ScheduledActionName": "deadline", "StartTime": when, **sizes}


def test_whoever_is_not_the_administrator_may_what_their_policies_say_and_no_more(cloud):
    group(cloud)
    cloud.client("s3").create_bucket(Bucket=made.BUCKET)
    cloud.client("s3").create_bucket(Bucket="other")
    own = f"arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/{GROUP}"
    may = {"Effect": "Allow", "Action": "autoscaling:UpdateAutoScalingGroup", "Resource": own}
    keys = made.person(cloud, json.dumps({"Version": "2012-10-17", "Statement": [may]}))
    said = {"aws_access_key_id": keys["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": keys["AWS_SECRET_ACCESS_KEY"]}

    def allowed(service: str, call: str, **words: object) -> bool:
        client = boto3.client(service, endpoint_url=cloud.url, region_name=REGION, **said)
        try:
            getattr(client, call)(**words)
        except ClientError as error:
            assert "Denied" in error.response["Error"]["Code"] or error.response["Error"]["Code"] == "403", error
            return False
        return True

    assert allowed("s3", "put_object", Bucket=made.BUCKET, Key="a", Body=b"")
    assert not allowed("s3", "put_object", Bucket="other", Key="a", Body=b"")
    assert allowed("autoscaling", "update_auto_scaling_group", AutoScalingGroupName=GROUP, MaxSize=1)
    assert not allowed("autoscaling", "update_auto_scaling_group", AutoScalingGroupName="other", MaxSize=1)
    assert not allowed("autoscaling", "delete_auto_scaling_group", AutoScalingGroupName=GROUP)


def test_each_group_has_scheduled_actions_of_its_own(cloud):
    group(cloud)
    scaling = cloud.client("autoscaling")
    scaling.create_auto_scaling_group(
        AutoScalingGroupName="other",
        LaunchTemplate={"LaunchTemplateName": "ems-head", "Version": "$Latest"},
        MinSize=0,
        MaxSize=1,
        AvailabilityZones=["us-east-1a"],
    )

    def groups() -> list[str]:
        found = scaling.describe_scheduled_actions()["ScheduledUpdateGroupActions"]
        return sorted(each["AutoScalingGroupName"] for each in found)

    for name in (GROUP, "other"):
        words = {"AutoScalingGroupName": name, "ScheduledActionName": "deadline"}
        scaling.put_scheduled_update_group_action(**words, StartTime=cloud.now() + timedelta(hours=1), MaxSize=0)
    assert groups() == [GROUP, "other"]
    scaling.delete_scheduled_action(AutoScalingGroupName="other", ScheduledActionName="deadline")
    assert groups() == [GROUP]


def test_a_scheduled_action_fires_and_one_in_the_past_is_refused(cloud):
    group(cloud, 1)
    code, said = refused("put_scheduled_update_group_action", cloud, **close_at(cloud, -1))
    assert (code, said) == ("ValidationError", "Given start time is in the past")
    cloud.client("autoscaling").put_scheduled_update_group_action(**close_at(cloud, 3600))
    cloud.advance(3590)
    cloud.tick()
    assert len(cloud.instances()) == 1
    cloud.advance(20)
    eventually(lambda: cloud.instances() == [] and sizes(cloud) == [0])
    code, _ = refused("set_desired_capacity", cloud, AutoScalingGroupName=GROUP, DesiredCapacity=1)
    assert code == "ValidationError"


def role(cloud: Cloud, service: str, action: str) -> str:
    iam = cloud.client("iam")
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]}
    made = iam.create_role(RoleName="deadline", AssumeRolePolicyDocument=json.dumps(trust))
    may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}
    iam.put_role_policy(RoleName="deadline", PolicyName="deadline", PolicyDocument=json.dumps(may))
    return str(made["Role"]["Arn"])


@pytest.mark.parametrize(
    ("service", "action", "problem"),
    [
        ("scheduler.amazonaws.com", "autoscaling:DeleteAutoScalingGroup", ""),
        ("ec2.amazonaws.com", "autoscaling:DeleteAutoScalingGroup", "does not trust"),
        ("scheduler.amazonaws.com", "autoscaling:DescribeAutoScalingGroups", "may not"),
    ],
)
def test_a_one_time_schedule_deletes_a_group_in_the_name_of_its_role(cloud, service, action, problem):
    group(cloud, 1)
    target = {
        "Arn": UNIVERSAL,
        "RoleArn": role(cloud, service, action),
        "Input": json.dumps({"AutoScalingGroupName": GROUP, "ForceDelete": True}),
    }
    cloud.client("scheduler").create_schedule(
        Name="deadline",
        ScheduleExpression=f"at({cloud.now() + timedelta(hours=1):%Y-%m-%dT%H:%M:%S})",
        FlexibleTimeWindow={"Mode": "OFF"},
        ActionAfterCompletion="DELETE",
        Target=target,
    )
    cloud.advance(3610)
    eventually(lambda: cloud.client("scheduler").list_schedules()["Schedules"] == [])
    if problem:
        assert problem in cloud.refused[0] and sizes(cloud) == [1]
    else:
        eventually(lambda: sizes(cloud) == [] and cloud.instances() == [])
        assert cloud.refused == []
