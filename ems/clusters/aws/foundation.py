"""What a lab has in an account for all its runs, as resources of Pulumi's own provider: made once, with its stack.

A bucket, the identity of the machines, and what they reach: each only where the stack does not name one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi_aws import Provider, ec2, iam, s3

from ems.clusters.aws import identity
from ems.clusters.aws.plan import PREFIX
from ems.lab import Lab

KEPT_DAYS = 90  # what runs had in the bucket; what is needed again is sent again
EVERYWHERE = "0.0.0.0/0"


def made(lab: Lab, stack: str, settings: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[pulumi.Resource]]:
    """The settings, completed, and the resources that they name."""
    name = f"ems-{re.sub('[^a-z0-9]+', '-', stack.lower()).strip('-')}"
    tags = {"ems:stack": stack}
    provider = Provider(name, region=settings["region"])
    options = pulumi.ResourceOptions(provider=provider)
    resources: list[pulumi.Resource] = [provider]
    found = dict(settings)
    if not found.get("bucket"):
        bucket = _bucket(name, tags, options)
        found["bucket"], resources = bucket[0].bucket, [*resources, *bucket]
    if not found.get("instance_profile"):
        node = _identity(name, tags, found["bucket"], lab, options)
        found["instance_profile"], resources = node[-1].name, [*resources, *node]
    if not found.get("security_groups"):
        group = _security_group(name, tags, settings.get("vpc"), options)
        found["security_groups"], resources = [group.id], [*resources, group]
    return found, resources


def _bucket(
    name: str, tags: Mapping[str, str], options: pulumi.ResourceOptions
) -> tuple[s3.Bucket, s3.BucketPublicAccessBlock, s3.BucketLifecycleConfiguration]:
    """Nobody from outside reads it; what runs had there goes after some time."""
    bucket = s3.Bucket(name, tags=tags, opts=options)
    closed = s3.BucketPublicAccessBlock(
        f"{name}-closed",
        bucket=bucket.bucket,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=options,
    )
    rules = [
        s3.BucketLifecycleConfigurationRuleArgs(
            id=part,
            status="Enabled",
            expiration=s3.BucketLifecycleConfigurationRuleExpirationArgs(days=KEPT_DAYS),
            filter=s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=f"{PREFIX}{part}/"),
        )
        for part in ("runs", "files")
    ]
    kept = s3.BucketLifecycleConfiguration(f"{name}-kept", bucket=bucket.bucket, rules=rules, opts=options)
    return bucket, closed, kept


def _identity(
    name: str, tags: Mapping[str, str], bucket: pulumi.Input[str], lab: Lab, options: pulumi.ResourceOptions
) -> tuple[iam.Role, iam.RolePolicy, iam.InstanceProfile]:
    """Of the machines, which have no key of their own."""
    role = iam.Role(name, assume_role_policy=json.dumps(identity.TRUST), tags=tags, opts=options)
    urls = lab.store_url, lab.database_url
    may = pulumi.Output.from_input(bucket).apply(lambda found: json.dumps(identity.of_machines(found, *urls)))
    policy = iam.RolePolicy(name, role=role.name, policy=may, opts=options)
    return role, policy, iam.InstanceProfile(name, role=role.name, tags=tags, opts=options)


def _security_group(
    name: str, tags: Mapping[str, str], vpc: str | None, options: pulumi.ResourceOptions
) -> ec2.SecurityGroup:
    """Nothing comes in, but from each other."""
    within = ec2.SecurityGroupIngressArgs(protocol="tcp", from_port=1024, to_port=65535, self=True)
    out = ec2.SecurityGroupEgressArgs(protocol="-1", from_port=0, to_port=0, cidr_blocks=[EVERYWHERE])
    words = ec2.SecurityGroupArgs(description="Machines of EMS", ingress=[within], egress=[out], tags=tags, vpc_id=vpc)
    return ec2.SecurityGroup(name, words, options)
