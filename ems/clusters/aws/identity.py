"""What the machines of a cloud may do, and who starts runs on it: no more than it takes, as policies of IAM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ems.clusters.aws.plan import PREFIX
from ems.databases.dynamodb.database import URL
from ems.databases.dynamodb.setup import rights

Policy = Mapping[str, Any]
GROUPS = "arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/ems-*"
TEMPLATES = "arn:aws:ec2:*:*:launch-template/*"
SERVICES = "arn:aws:iam::*:role/aws-service-role/*"
OWN = {"Null": {"aws:ResourceTag/ems:experiment": "false"}}  # what has this tag, whatever its value
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def of_machines(bucket: str, store_url: str, database_url: str) -> Policy:
    """For the role of the machines. `bucket`: that by which runs get to them; the URLs are the lab's."""
    return _policy(
        _allow(["s3:GetObject", "s3:PutObject"], f"arn:aws:s3:::{bucket}/{PREFIX}*"),
        _allow(["s3:ListBucket"], f"arn:aws:s3:::{bucket}"),  # else what is not there is told as forbidden
        _allow(["autoscaling:UpdateAutoScalingGroup", "autoscaling:TerminateInstanceInAutoScalingGroup"], GROUPS),
        *_of_store(store_url),
        *_of_database(database_url),
    )


def of_people(bucket: str, role: str) -> Policy:
    """For whoever runs `ems up` of experiments. `role`: the name of the role of the machines."""
    changing = ["ec2:DeleteLaunchTemplate", "ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate"]
    making = ["ec2:CreateLaunchTemplate", "ec2:CreateTags", "ec2:RunInstances"]
    return _policy(
        _allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], f"arn:aws:s3:::{bucket}/{PREFIX}*"),
        _allow(["s3:ListBucket"], f"arn:aws:s3:::{bucket}"),
        _allow(["autoscaling:*"], GROUPS),
        _allow(["autoscaling:Describe*", "ec2:Describe*", *making], "*"),
        {**_allow(changing, TEMPLATES), "Condition": OWN},
        _allow(["iam:PassRole"], f"arn:aws:iam::*:role/{role}"),
        _allow(["iam:CreateServiceLinkedRole"], SERVICES),  # by the first group of an account
    )


def _policy(*statements: Mapping[str, Any]) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(actions: list[str], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}


def _of_store(url: str) -> Iterator[dict[str, Any]]:
    if url.startswith("s3://"):
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        path = f"{bucket}/{prefix.rstrip('/')}/*" if prefix else f"{bucket}/*"
        yield _allow(["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], f"arn:aws:s3:::{path}")
        yield _allow(["s3:ListBucket", "s3:ListBucketMultipartUploads"], f"arn:aws:s3:::{bucket}")


def _of_database(url: str) -> Iterator[dict[str, Any]]:
    """Of its tables, or of the secret that has its password, where AWS keeps them."""
    if found := URL.fullmatch(url):
        yield rights("agent", found["region"], found["prefix"])
    secret = ":".join(url.partition("password_from=arn:")[2].partition("&")[0].split(":")[:6])
    if secret:
        yield _allow(["secretsmanager:GetSecretValue"], f"arn:{secret}")
