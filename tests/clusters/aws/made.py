"""What a lab has in an account, and what Pulumi makes for a run, made by hand: bucket, identity, template and group."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ems.clusters.aws.plan import PREFIX, Machines
from tests.clusters.aws.cloud import REGION, Cloud

BUCKET, NODE = "lab-of-tests", "ems-node"
TRUST = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
IMAGE = "ami-12c6146b"


def account(cloud: Cloud) -> dict[str, Any]:
    """The settings of the place, once all is there that they name."""
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    iam, ec2 = cloud.client("iam"), cloud.client("ec2")
    iam.create_role(RoleName=NODE, AssumeRolePolicyDocument=json.dumps({"Statement": [TRUST]}))
    iam.create_instance_profile(InstanceProfileName=NODE)
    iam.add_role_to_instance_profile(InstanceProfileName=NODE, RoleName=NODE)
    subnets = [each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]]
    (security_group, *_) = ec2.describe_security_groups()["SecurityGroups"]
    return {
        "region": REGION,
        "bucket": BUCKET,
        "instance_profile": NODE,
        "subnets": subnets[:2],
        "security_groups": [security_group["GroupId"]],
        "image": IMAGE,
        "machine": ["t3.micro"],
    }


def archives(cloud: Cloud, folder: Path) -> None:
    """Have the archives of a folder in the bucket, as instances before have left them."""
    for file in folder.glob("*/environment.tar.gz*"):
        cloud.client("s3").upload_file(str(file), BUCKET, f"{PREFIX}environments/{file.parent.name}/{file.name}")


def group(cloud: Cloud, machines: Machines) -> None:
    """Of size 0, unless it is there."""
    autoscaling, ec2 = cloud.client("autoscaling"), cloud.client("ec2")
    if autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[machines.group])["AutoScalingGroups"]:
        return
    said = {
        "ImageId": machines.wanted.image,
        "InstanceType": machines.types[0],
        "UserData": base64.b64encode(machines.script.encode()).decode(),
        "IamInstanceProfile": {"Name": machines.wanted.instance_profile},
    }
    ec2.create_launch_template(LaunchTemplateName=machines.template, LaunchTemplateData=said)
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=machines.group,
        LaunchTemplate={"LaunchTemplateName": machines.template, "Version": "$Latest"},
        MinSize=0,
        MaxSize=machines.size,
        DesiredCapacity=0,
        VPCZoneIdentifier=",".join(machines.wanted.subnets),
    )
