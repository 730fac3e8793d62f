"""What a lab has in an account, and what Pulumi makes for a run, made by hand: bucket, identity, template and group."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path
from typing import Any

from ems.clusters.aws import identity
from ems.clusters.aws.plan import PREFIX, Machines
from tests.clusters.aws.cloud import REGION, Cloud

BUCKET, NODE = "lab-of-tests", "ems-node"
STORE = f"s3://{BUCKET}/files"
TRUST = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
IMAGE = "ami-12c6146b"


def account(cloud: Cloud) -> dict[str, Any]:
    """The settings of the place, once all is there that they name. The lab's store is in the same bucket."""
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    iam, ec2 = cloud.client("iam"), cloud.client("ec2")
    iam.create_role(RoleName=NODE, AssumeRolePolicyDocument=json.dumps({"Statement": [TRUST]}))
    may = identity.of_machines(BUCKET, STORE, "postgresql://there/lab")
    iam.put_role_policy(RoleName=NODE, PolicyName=NODE, PolicyDocument=json.dumps(may))
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


def archives(cloud: Cloud, folder: Path, bucket: str = BUCKET) -> None:
    """Have the archives of a folder in a bucket, as instances before have left them."""
    for file in folder.glob("*/environment.tar.gz*"):
        cloud.client("s3").upload_file(str(file), bucket, f"{PREFIX}environments/{file.parent.name}/{file.name}")


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


def person(cloud: Cloud, policy: str) -> dict[str, str]:
    """Somebody who may what the policy says, and write into the lab's store: the variables of their key."""
    iam, name = cloud.client("iam"), f"person-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="runs", PolicyDocument=policy)
    store = {"Effect": "Allow", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]}
    iam.put_user_policy(
        UserName=name,
        PolicyName="store",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [store]}),
    )
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
