"""What AWS does and refuses, where moto lets it pass: put in the place of moto's own functions while a cloud runs."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest
from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup
from moto.autoscaling.responses import AutoScalingResponse, EmptyResult
from moto.core.responses import ActionResult
from moto.ec2.exceptions import DependencyViolationError, EC2ClientError
from moto.ec2.models.instances import Instance, InstanceBackend, MetadataOptions
from moto.ec2.models.launch_templates import LaunchTemplate, LaunchTemplateBackend
from moto.ec2.models.security_groups import SecurityGroupBackend

USER_DATA_BYTES = 16_384
SIZES = ("min_size", "max_size", "desired_capacity")
ENDED = {32, 48}  # codes of states: shutting down, terminated
STILL_THERE = (
    "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the "
    "group."
)
NOT_FOUND = "AutoScalingGroup name not found - AutoScalingGroup '{}' not found"


class ResourceInUse(AutoscalingClientError):
    code = "ResourceInUse"


class AlreadyExists(AutoscalingClientError):
    code = "AlreadyExists"


class Told(Protocol):
    """What these functions know of the cloud, and tell it."""

    def now(self) -> datetime: ...

    def instances(self) -> list[Instance]: ...

    def may_begin(self, group: FakeAutoScalingGroup) -> bool: ...

    began: Callable[[Instance], None]
    ended: Callable[[Instance], None]
    activities: list[dict[str, Any]]


# Groups


def creating(_: Told, create: Any) -> Any:
    def create_auto_scaling_group(self: AutoScalingBackend, name: str, **wanted: Any) -> FakeAutoScalingGroup:
        if name in self.autoscaling_groups:
            said = f"AutoScalingGroup by this name already exists - A group with the name {name} already exists"
            raise AlreadyExists(said)
        check_sizes(*(as_int(wanted[key]) for key in SIZES))
        return create(self, name, **wanted)

    return create_auto_scaling_group


def updating(_: Told, update: Any) -> Any:
    def update_auto_scaling_group(self: AutoScalingBackend, name: str, **wanted: Any) -> FakeAutoScalingGroup:
        if group := self.autoscaling_groups.get(name):
            least, most, desired = (as_int(wanted.get(key)) for key in SIZES)
            check_sizes(group.min_size if least is None else least, group.max_size if most is None else most, desired)
        return update(self, name, **wanted)

    return update_auto_scaling_group


def desiring(_: Told, desire: Any) -> Any:
    def set_desired_capacity(self: AutoScalingBackend, group_name: str, desired_capacity: int | None) -> None:
        group = found(self, group_name)
        for bound, sign, word in ((group.max_size, 1, "above max"), (group.min_size, -1, "below min")):
            if ((desired_capacity or 0) - (bound or 0)) * sign > 0:
                said = f"New SetDesiredCapacity value {desired_capacity} is {word} value {bound}"
                raise ValidationError(f"{said} for the AutoScalingGroup.")
        desire(self, group_name, desired_capacity)

    return set_desired_capacity


def filling(cloud: Told, replace: Any) -> Any:
    def replace_autoscaling_group_instances(
        self: FakeAutoScalingGroup, count_needed: int, tags: dict[str, str]
    ) -> None:
        for _ in range(count_needed):
            if not cloud.may_begin(self):
                return
            replace(self, 1, tags)
            cloud.activities.append(activity(cloud, self, "Successful", ""))

    return replace_autoscaling_group_instances


def telling(cloud: Told, _: Any) -> Any:
    def describe_scaling_activities(self: AutoScalingResponse) -> ActionResult:
        name = self._get_param("AutoScalingGroupName")
        found = [each for each in cloud.activities if name in {None, each["AutoScalingGroupName"]}]
        return ActionResult({"Activities": found[::-1]})

    return describe_scaling_activities


def activity(cloud: Told, group: FakeAutoScalingGroup, status: str, message: str) -> dict[str, Any]:
    """What a group has tried: to launch one instance."""
    told = {"Description": "Launching a new EC2 instance", "Cause": "a difference between desired and actual capacity"}
    ids = {"ActivityId": str(uuid.uuid4()), "AutoScalingGroupName": group.name}
    return {**ids, **told, "StartTime": cloud.now(), "StatusCode": status, "StatusMessage": message, "Progress": 100}


def scheduling(cloud: Told, put: Any) -> Any:
    def put_scheduled_update_group_action(self: AutoScalingBackend, name: str, **wanted: Any) -> Any:
        found(self, name)
        if wanted.get("start_time") and moment(wanted["start_time"]) <= cloud.now():
            raise ValidationError("Given start time is in the past")
        check_sizes(*(as_int(wanted[key]) for key in SIZES))
        action = put(self, name, **wanted)
        self.scheduled_actions[f"{name}/{action.scheduled_action_name}"] = self.scheduled_actions.pop(
            action.scheduled_action_name
        )
        return action

    return put_scheduled_update_group_action


def unscheduling(_: Told, __: Any) -> Any:
    """Of each group its own: moto has one of a name."""

    def delete_scheduled_action(
        self: AutoScalingBackend, auto_scaling_group_name: str, scheduled_action_name: str
    ) -> None:
        if self.scheduled_actions.pop(f"{auto_scaling_group_name}/{scheduled_action_name}", None) is None:
            raise ValidationError("Scheduled action name not found")

    return delete_scheduled_action


def deleting(_: Told, __: Any) -> Any:
    def delete_auto_scaling_group(self: AutoScalingResponse) -> EmptyResult:
        force = self._get_bool_param("ForceDelete", False)
        delete_group(self.autoscaling_backend, self._get_param("AutoScalingGroupName"), force=force)
        return EmptyResult()

    return delete_auto_scaling_group


# Instances and what they are made of


def launching(cloud: Told, launch: Any) -> Any:
    def run_instances(self: Any, *words: Any, **wanted: Any) -> Any:
        reservation = launch(self, *words, **wanted)
        template = wanted.get("launch_template")
        for instance in reservation.instances:
            if template:
                as_its_template_says(instance, self._get_template_from_args(template).data)
            cloud.began(instance)
        return reservation

    return run_instances


def terminating(cloud: Told, terminate: Any) -> Any:
    def terminate_instances(self: Any, instance_ids: list[str]) -> Any:
        ended = [each for each in self.all_instances() if each.id in instance_ids and each.state_code not in ENDED]
        done = terminate(self, instance_ids)
        for instance in ended:
            cloud.ended(instance)
        return done

    return terminate_instances


def versioning(_: Told, create: Any) -> Any:
    def create_version(self: LaunchTemplate, data: dict[str, Any], description: str) -> Any:
        if len(base64.b64decode(str(data.get("UserData") or ""))) > USER_DATA_BYTES:
            raise EC2ClientError("InvalidUserData.Malformed", f"User data is limited to {USER_DATA_BYTES} bytes.")
        return create(self, data, description)

    return create_version


def templating(_: Told, create: Any) -> Any:
    def create_launch_template(self: Any, name: str, description: str, template_data: dict[str, Any], tags: Any) -> Any:
        """The template's own tags are none of its instances."""
        of_instances = [
            each for each in template_data.pop("TagSpecifications", ()) if each["ResourceType"] != "launch-template"
        ]
        return create(self, name, description, {**template_data, "TagSpecifications": of_instances}, tags)

    return create_launch_template


def unguarding(cloud: Told, delete: Any) -> Any:
    def delete_security_group(self: Any, name: str | None = None, group_id: str | None = None) -> Any:
        if any(group_id in {group.id for group in each.security_groups} for each in cloud.instances()):
            raise DependencyViolationError(f"resource {group_id} has a dependent object")
        return delete(self, name, group_id)

    return delete_security_group


STRICTER = {
    (AutoScalingBackend, "create_auto_scaling_group"): creating,
    (AutoScalingBackend, "update_auto_scaling_group"): updating,
    (AutoScalingBackend, "set_desired_capacity"): desiring,
    (FakeAutoScalingGroup, "replace_autoscaling_group_instances"): filling,
    (AutoScalingResponse, "describe_scaling_activities"): telling,
    (AutoScalingBackend, "put_scheduled_update_group_action"): scheduling,
    (AutoScalingBackend, "delete_scheduled_action"): unscheduling,
    (AutoScalingResponse, "delete_auto_scaling_group"): deleting,
    (InstanceBackend, "run_instances"): launching,
    (InstanceBackend, "terminate_instances"): terminating,
    (LaunchTemplate, "create_version"): versioning,
    (LaunchTemplateBackend, "create_launch_template"): templating,
    (SecurityGroupBackend, "delete_security_group"): unguarding,
}


def make_strict(cloud: Told, patch: pytest.MonkeyPatch) -> None:
    """Have moto do and refuse what AWS does and refuses."""
    for (owner, name), stricter in STRICTER.items():
        patch.setattr(owner, name, stricter(cloud, getattr(owner, name, None)), raising=False)


# What both need


def found(groups: AutoScalingBackend, name: str) -> FakeAutoScalingGroup:
    """ValidationError without such a group."""
    if name not in groups.autoscaling_groups:
        raise ValidationError(NOT_FOUND.format(name))
    return groups.autoscaling_groups[name]


def check_sizes(least: int | None, most: int | None, wanted: int | None) -> None:
    """ValidationError of sizes that do not go together."""
    if least is not None and most is not None and least > most:
        raise ValidationError("Max bound must be greater than or equal to min bound")
    if wanted is None:
        return
    if (least is not None and wanted < least) or (most is not None and wanted > most):
        said = f"Desired capacity:{wanted} must be between the specified min size:{least} and max size:{most}"
        raise ValidationError(said)


def delete_group(groups: AutoScalingBackend, name: str, *, force: bool) -> None:
    """With its instances only by force."""
    group = found(groups, name)
    if group.active_instances() and not force:
        raise ResourceInUse(STILL_THERE)
    resize(group, 0, 0, 0)
    del groups.autoscaling_groups[name]
    for key in [key for key, action in groups.scheduled_actions.items() if action.auto_scaling_group_name == name]:
        del groups.scheduled_actions[key]


def resize(group: FakeAutoScalingGroup, least: int | None, most: int | None, wanted: int | None) -> None:
    """Past all checks, as the service does it by itself."""
    group.min_size = group.min_size if least is None else least
    group.max_size = group.max_size if most is None else most
    if wanted is None:
        wanted = min(max(group.desired_capacity or 0, group.min_size or 0), group.max_size or 0)
    group.set_desired_capacity(wanted)


def as_its_template_says(instance: Instance, said: dict[str, Any]) -> None:
    """What moto drops of a template: profile, metadata options, the market, tags of volumes."""
    if "IamInstanceProfile" in said:
        instance.iam_instance_profile = said["IamInstanceProfile"]
    if "MetadataOptions" in said:
        instance.metadata_options = MetadataOptions(said["MetadataOptions"])
    if said.get("InstanceMarketOptions", {}).get("MarketType") == "spot":
        instance.lifecycle = "spot"


def moment(said: Any) -> datetime:
    """As a request has it."""
    found = said if isinstance(said, datetime) else datetime.fromisoformat(str(said))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def as_int(said: Any) -> int | None:
    return None if said is None else int(said)
