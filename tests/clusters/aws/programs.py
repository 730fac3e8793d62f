"""Programs for the AWS of tests, of resources of the real package."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pulumi
from pulumi_aws import autoscaling, ec2, iam, s3, scheduler

from tests.clusters.aws.cloud import REGION, UNIVERSAL

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


def everything(name: str, when: str) -> Callable[[], None]:
    """One resource of each type; the group closes at `when`, and is deleted then."""

    def program() -> None:
        files(name)
        role = iam.Role("role", name=name, assume_role_policy=json.dumps(TRUST, indent=2), tags=TAGS)
        iam.RolePolicy("may", name=name, role=role.name, policy=json.dumps(MAY))
        profile = iam.InstanceProfile("profile", name=name, role=role.name, tags=TAGS)
        template = whole_template(name, profile)
        group = autoscaling.Group(
            "group",
            name=name,
            min_size=0,
            max_size=2,
            desired_capacity=0,
            availability_zones=[f"{REGION}a"],
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            tags=[{"key": "ems", "value": "lab", "propagate_at_launch": True}],
        )
        ends(name, group, role, when)

    return program


def files(name: str) -> None:
    """A bucket that is closed, and whose older files go."""
    bucket = s3.Bucket("bucket", bucket=name, force_destroy=True, tags=TAGS)
    s3.BucketPublicAccessBlock("closed", bucket=bucket.bucket, block_public_acls=True, block_public_policy=True)
    rule = {"id": "old", "status": "Enabled", "expiration": {"days": 30}, "filter": {"prefix": "spool/"}}
    s3.BucketLifecycleConfiguration("old", bucket=bucket.bucket, rules=[rule])


def whole_template(name: str, profile: iam.InstanceProfile) -> ec2.LaunchTemplate:
    """With all that instances need, and their security group."""
    everywhere = {"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": ["0.0.0.0/0"]}
    within = {"protocol": "tcp", "from_port": 8786, "to_port": 8786, "self": True, "description": "Dask"}
    ports = ec2.SecurityGroup("ports", name=name, egress=[everywhere], ingress=[within], tags=TAGS)
    disk = {"volume_size": 20, "encrypted": "true", "volume_type": "gp3"}
    return ec2.LaunchTemplate(
        "template",
        name=name,
        image_id=IMAGE,
        instance_type="t3.micro",
        user_data=base64.b64encode(b"#!/bin/sh\n").decode(),
        iam_instance_profile={"arn": profile.arn},
        vpc_security_group_ids=[ports.id],
        block_device_mappings=[{"device_name": "/dev/sda1", "ebs": disk}],
        instance_market_options={"market_type": "spot"},
        metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1},
        tag_specifications=[{"resource_type": "instance", "tags": TAGS}],
        tags=TAGS,
    )


def ends(name: str, group: autoscaling.Group, role: iam.Role, when: str) -> None:
    """Both deadlines of a group."""
    closed = {"min_size": 0, "max_size": 0, "desired_capacity": 0}
    autoscaling.Schedule(
        "closes", autoscaling_group_name=group.name, scheduled_action_name="deadline", start_time=when, **closed
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


def mixed(name: str, subnets: list[str], suspended: str) -> Callable[[], None]:
    """A group of several types in given subnets."""

    def program() -> None:
        template = ec2.LaunchTemplate(
            "template",
            name_prefix=name,
            image_id=IMAGE,
            update_default_version=True,
            network_interfaces=[
                {"device_index": 0, "associate_public_ip_address": "true", "security_groups": ["sg-1"]}
            ],
            monitoring={"enabled": False},
            instance_initiated_shutdown_behavior="terminate",
            placement={"tenancy": "default"},
        )
        types = [{"instance_type": "t3.micro"}, {"instance_type": "t3.small", "weighted_capacity": "2"}]
        autoscaling.Group(
            "group",
            min_size=0,
            max_size=2,
            vpc_zone_identifiers=subnets[::-1],
            capacity_rebalance=True,
            protect_from_scale_in=True,
            suspended_processes=[suspended],
            termination_policies=["OldestInstance"],
            mixed_instances_policy={
                "instances_distribution": {"on_demand_base_capacity": 0, "spot_allocation_strategy": "lowest-price"},
                "launch_template": {
                    "launch_template_specification": {"launch_template_id": template.id, "version": "$Latest"},
                    "overrides": types,
                },
            },
        )

    return program
