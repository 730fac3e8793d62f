"""What a run is made of, as resources of Pulumi's own provider: a template, a group of size 0, the time when it closes.

A group is opened and closed by EMS's own resource and by its instances: its sizes are nobody's difference.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pulumi
from pulumi_aws import Provider, autoscaling, ec2

from ems.clusters.aws.plan import ACTION, Machines

OPENED = ["min_size", "max_size", "desired_capacity"]  # by EMS, so that they are no difference to what is declared


def groups(
    machines: Sequence[Machines], minutes: int, depends_on: Sequence[pulumi.Resource]
) -> Sequence[pulumi.Resource]:
    """Groups of machines, each of which closes by itself in so many minutes from its first declaration."""
    provider = Provider(f"aws-{_short(machines[0])}", region=machines[0].wanted.region)
    options = pulumi.ResourceOptions(provider=provider, depends_on=list(depends_on))
    return [provider, *(resource for each in machines for resource in _group(each, minutes, options))]


def _short(machines: Machines) -> str:
    return machines.group.removeprefix("ems-")[:8]


def _group(machines: Machines, minutes: int, options: pulumi.ResourceOptions) -> Sequence[pulumi.Resource]:
    short = f"{machines.role}-{_short(machines)}"
    template = _template(machines, f"template-{short}", options)
    opened = pulumi.ResourceOptions(ignore_changes=OPENED, delete_before_replace=True)
    arguments = autoscaling.GroupArgs(
        name=machines.group,
        min_size=0,
        max_size=0,
        desired_capacity=0,
        vpc_zone_identifiers=list(machines.wanted.subnets),
        mixed_instances_policy=_policy(machines, template),
        force_delete=True,
        wait_for_capacity_timeout="0",
        tags=[
            autoscaling.GroupTagArgs(key=key, value=text, propagate_at_launch=True)
            for key, text in machines.tags.items()
        ],
    )
    made = autoscaling.Group(f"group-{short}", arguments, pulumi.ResourceOptions.merge(options, opened))
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    first = pulumi.ResourceOptions(ignore_changes=["start_time"], delete_before_replace=True)
    closes = autoscaling.ScheduleArgs(
        autoscaling_group_name=made.name,
        scheduled_action_name=ACTION,
        start_time=at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        min_size=0,
        max_size=0,
        desired_capacity=0,
    )
    deadline = autoscaling.Schedule(f"deadline-{short}", closes, pulumi.ResourceOptions.merge(options, first))
    return [template, made, deadline]


def _template(machines: Machines, name: str, options: pulumi.ResourceOptions) -> ec2.LaunchTemplate:
    wanted = machines.wanted
    disk = ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
        volume_size=wanted.disk_gb, volume_type="gp3", encrypted="true", delete_on_termination="true"
    )
    interface = ec2.LaunchTemplateNetworkInterfaceArgs(
        device_index=0,
        associate_public_ip_address="true" if wanted.public_address else "false",
        delete_on_termination="true",
        security_groups=list(wanted.security_groups),
    )
    arguments = ec2.LaunchTemplateArgs(
        name=machines.template,
        image_id=wanted.image,
        user_data=base64.b64encode(machines.script.encode()).decode(),
        iam_instance_profile=ec2.LaunchTemplateIamInstanceProfileArgs(name=wanted.instance_profile),
        network_interfaces=[interface],
        block_device_mappings=[ec2.LaunchTemplateBlockDeviceMappingArgs(device_name=wanted.disk, ebs=disk)],
        instance_initiated_shutdown_behavior="terminate",
        metadata_options=ec2.LaunchTemplateMetadataOptionsArgs(http_tokens="required", http_put_response_hop_limit=1),
        tag_specifications=[
            ec2.LaunchTemplateTagSpecificationArgs(resource_type=kind, tags=machines.tags)
            for kind in ("instance", "volume")
        ],
        tags=machines.tags,
    )
    return ec2.LaunchTemplate(name, arguments, options)


def _policy(machines: Machines, template: ec2.LaunchTemplate) -> autoscaling.GroupMixedInstancesPolicyArgs:
    """The types in their order, one after the other where one is sold out."""
    specification = autoscaling.GroupMixedInstancesPolicyLaunchTemplateLaunchTemplateSpecificationArgs(
        launch_template_id=template.id, version="$Latest"
    )
    return autoscaling.GroupMixedInstancesPolicyArgs(
        instances_distribution=autoscaling.GroupMixedInstancesPolicyInstancesDistributionArgs(
            on_demand_base_capacity=0,
            on_demand_percentage_above_base_capacity=0 if machines.spot else 100,
            on_demand_allocation_strategy="prioritized",
            spot_allocation_strategy="price-capacity-optimized",
        ),
        launch_template=autoscaling.GroupMixedInstancesPolicyLaunchTemplateArgs(
            launch_template_specification=specification,
            overrides=[
                autoscaling.GroupMixedInstancesPolicyLaunchTemplateOverrideArgs(instance_type=each)
                for each in machines.types
            ],
        ),
    )
