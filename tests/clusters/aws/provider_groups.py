"""Groups of instances, and what closes them at a time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar

from botocore.exceptions import ClientError
from pulumi_aws.autoscaling import group, schedule
from pulumi_aws.scheduler import schedule as one_time

from tests.clusters.aws.provider_kinds import (
    Account,
    Kind,
    Properties,
    Refused,
    code,
    from_service,
    gone,
    shape,
    to_service,
)
from tests.clusters.aws.provider_names import UNKNOWN, Problem

EMPTIES_S = 600.0
FORMAT = "%Y-%m-%dT%H:%M:%SZ"
SIZES = frozenset({"minSize", "maxSize", "desiredCapacity"})
MADE_FROM = ("launchTemplate", "mixedInstancesPolicy", "launchConfiguration")
CALLED = {
    "name": "autoScalingGroupName",
    "protectFromScaleIn": "newInstancesProtectedFromScaleIn",
    "vpcZoneIdentifiers": "vpcZoneIdentifier",
}
TEMPLATE = {"id": "launchTemplateId", "name": "launchTemplateName"}


class Group(Kind):
    token, noun = "aws:autoscaling/group:Group", "Auto Scaling Group"
    arguments, known = group.GroupArgs, group._GroupState
    named = "name"
    defaults: ClassVar[Properties] = {
        "forceDelete": False,
        "forceDeleteWarmPool": False,
        "healthCheckGracePeriod": 300,
        "ignoreFailedScalingActivities": False,
        "metricsGranularity": "1Minute",
        "protectFromScaleIn": False,
        "waitForCapacityTimeout": "10m",
    }
    replacing = frozenset({"name", "namePrefix", "placementGroup", "region"})
    computed = frozenset(
        {
            "availabilityZones",
            "capacityRebalance",
            "defaultCooldown",
            "desiredCapacity",
            "healthCheckType",
            "launchTemplate",
            "mixedInstancesPolicy",
            "name",
            "serviceLinkedRoleArn",
            "terminationPolicies",
            "vpcZoneIdentifiers",
        }
    )
    unordered = frozenset({"availabilityZones", "suspendedProcesses", "tags", "targetGroupArns", "vpcZoneIdentifiers"})
    kept = frozenset(
        {
            "forceDelete",
            "forceDeleteWarmPool",
            "ignoreFailedScalingActivities",
            "metricsGranularity",
            "namePrefix",
            "waitForCapacityTimeout",
        }
    )
    undone = frozenset(
        {
            "availabilityZoneDistribution",
            "capacityReservationSpecification",
            "context",
            "enabledMetrics",
            "initialLifecycleHooks",
            "instanceLifecyclePolicy",
            "instanceMaintenancePolicy",
            "instanceRefresh",
            "launchConfiguration",
            "loadBalancers",
            "minElbCapacity",
            "placementGroup",
            "targetGroupArns",
            "trafficSources",
            "waitForElbCapacity",
            "warmPool",
        }
    )

    def wrong(self, inputs: Properties) -> Iterable[Problem]:
        given = [key for key in MADE_FROM if key in inputs]
        if len(given) != 1:
            names = ", ".join(MADE_FROM)
            yield Problem("launchTemplate", f"exactly one of {names} must be specified, and {len(given)} are.")
        template = inputs.get("launchTemplate")
        if isinstance(template, dict) and ("id" in template) == ("name" in template):
            yield Problem("launchTemplate", "one of launchTemplate.id and launchTemplate.name must be specified.")
        if "availabilityZones" in inputs and "vpcZoneIdentifiers" in inputs:
            yield Problem("availabilityZones", '"availabilityZones": conflicts with vpcZoneIdentifiers.')

    def create(self, aws: Account, inputs: Properties) -> str:
        scaling, name = aws.client("autoscaling"), self.name_of(inputs)
        said = {**inputs, "name": name}
        scaling.create_auto_scaling_group(**self._said(scaling, "CreateAutoScalingGroup", said))
        return name

    def complete(self, aws: Account, id: str, inputs: Properties) -> None:
        scaling = aws.client("autoscaling")
        if processes := inputs.get("suspendedProcesses"):
            scaling.suspend_processes(AutoScalingGroupName=id, ScalingProcesses=processes)
        self._await_capacity(aws, scaling, id, inputs, set())

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        found = _group(aws.client("autoscaling"), id)
        if found is None:
            return None
        said = from_service(found)
        template = {_called_here(key): value for key, value in said.get("launchTemplate", {}).items()}
        every = (each for each in found.get("Tags", ()) if not each["Key"].startswith("aws:"))
        tags = [
            {"key": each["Key"], "value": each["Value"], "propagateAtLaunch": each["PropagateAtLaunch"]}
            for each in every
        ]
        return {
            **{key: said[key] for key in self.names() - self.kept - {"tags", "launchTemplate"} if key in said},
            "name": id,
            "arn": found["AutoScalingGroupARN"],
            "launchTemplate": template or None,
            "protectFromScaleIn": found.get("NewInstancesProtectedFromScaleIn", False),
            "suspendedProcesses": [each["ProcessName"] for each in found.get("SuspendedProcesses", ())],
            "tags": tags,
            "vpcZoneIdentifiers": [each for each in found.get("VPCZoneIdentifier", "").split(",") if each],
        }

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        scaling = aws.client("autoscaling")
        told = {each["ActivityId"] for each in _activities(scaling, id)}
        said = {key: value for key, value in inputs.items() if key in changed - {"tags", "suspendedProcesses"}}
        if said.keys() - self.kept:
            scaling.update_auto_scaling_group(**self._said(scaling, "UpdateAutoScalingGroup", {**said, "name": id}))
        if "tags" in changed:
            _retag(scaling, id, before.get("tags") or [], inputs.get("tags") or [])
        if "suspendedProcesses" in changed:
            had, wanted = (set(each.get("suspendedProcesses") or ()) for each in (before, inputs))
            if had - wanted:
                scaling.resume_processes(AutoScalingGroupName=id, ScalingProcesses=sorted(had - wanted))
            if wanted - had:
                scaling.suspend_processes(AutoScalingGroupName=id, ScalingProcesses=sorted(wanted - had))
        if changed & {"minSize", "desiredCapacity"}:
            self._await_capacity(aws, scaling, id, inputs, told)

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        scaling, by_force = aws.client("autoscaling"), bool(before.get("forceDelete"))
        if _group(scaling, id) is None:
            return
        try:
            if not by_force:
                self._drain(aws, scaling, id)
            words = {"AutoScalingGroupName": id, "ForceDelete": by_force}
            aws.insist(lambda: scaling.delete_auto_scaling_group(**words), EMPTIES_S)
        except ClientError as error:
            if code(error) != "ValidationError" or "not found" not in str(error):
                raise
        aws.wait(lambda: _group(scaling, id) is None, EMPTIES_S, lambda: "the group to be gone")

    def _drain(self, aws: Account, scaling: Any, id: str) -> None:
        scaling.update_auto_scaling_group(AutoScalingGroupName=id, MinSize=0, MaxSize=0, DesiredCapacity=0)
        left: list[Any] = []

        def is_empty() -> bool:
            left[:] = (_group(scaling, id) or {}).get("Instances", ())
            guarded = [each["InstanceId"] for each in left if each.get("ProtectedFromScaleIn")]
            if guarded:
                words = {"AutoScalingGroupName": id, "ProtectedFromScaleIn": False}
                scaling.set_instance_protection(**words, InstanceIds=guarded)
            return not left

        aws.wait(is_empty, EMPTIES_S, lambda: f"{self.noun} ({id}) drain: {len(left)} instances are left")

    def _await_capacity(self, aws: Account, scaling: Any, id: str, inputs: Properties, told: set[str]) -> None:
        """Until as many are in service as wanted; an activity that fails meanwhile ends it, as it ends the real one."""
        patience_s = duration(inputs.get("waitForCapacityTimeout", "10m"))
        wanted = int(inputs.get("desiredCapacity") or inputs.get("minSize") or 0)
        there = 0

        def is_so() -> bool:
            nonlocal there
            if not inputs.get("ignoreFailedScalingActivities"):
                for each in _activities(scaling, id):
                    if each["ActivityId"] not in told and each["StatusCode"] == "Failed":
                        said = f"scaling activity ({each['ActivityId']}): Failed: {each['StatusMessage']}"
                        raise Refused(said)
            instances = (_group(scaling, id) or {}).get("Instances", ())
            there = sum(each["LifecycleState"] == "InService" for each in instances)
            return there >= wanted

        if patience_s:
            awaited = "want at least {} healthy instance(s) in Auto Scaling Group, have {}"
            aws.wait(is_so, patience_s, lambda: f"capacity: {awaited.format(wanted, there)}")

    def _said(self, scaling: Any, call: str, inputs: Properties) -> Properties:
        """The arguments of a call."""
        said = {CALLED.get(key, key): value for key, value in inputs.items() if key not in self.kept | {"region"}}
        said.pop("suspendedProcesses", None)
        if "vpcZoneIdentifier" in said:
            said["vpcZoneIdentifier"] = ",".join(said["vpcZoneIdentifier"])
        if "launchTemplate" in said:
            said["launchTemplate"] = {TEMPLATE.get(key, key): value for key, value in said["launchTemplate"].items()}
        return dict(to_service(shape(scaling, call), said))


class Schedule(Kind):
    token, noun = "aws:autoscaling/schedule:Schedule", "Auto Scaling Scheduled Action"
    arguments, known = schedule.ScheduleArgs, schedule._ScheduleState
    replacing = frozenset({"autoscalingGroupName", "scheduledActionName", "region"})
    computed = SIZES | {"startTime", "endTime", "recurrence", "timeZone"}

    def wrong(self, inputs: Properties) -> Iterable[Problem]:
        for key in ("startTime", "endTime"):
            if inputs.get(key, UNKNOWN) != UNKNOWN and not _is_time(inputs[key]):
                yield Problem(key, f"\"{key}\": cannot parse {inputs[key]!r} as {FORMAT}. Examine values at '{key}'.")

    def own_id(self, id: str) -> str:
        return id.rpartition("/")[2]

    def create(self, aws: Account, inputs: Properties) -> str:
        self.update(aws, "", set(), {}, inputs)
        return str(inputs["scheduledActionName"])

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        """Imported as GROUP/ACTION."""
        owner, _, name = id.rpartition("/")
        owner = owner or before.get("autoscalingGroupName", "")
        try:
            words = {"AutoScalingGroupName": owner, "ScheduledActionNames": [name]}
            found = aws.client("autoscaling").describe_scheduled_actions(**words)["ScheduledUpdateGroupActions"]
        except ClientError as error:
            if code(error) != "ValidationError" or "not found" not in str(error):
                raise
            return None
        if not found:
            return None
        times = {key: f"{found[0][key]:{FORMAT}}" for key in ("StartTime", "EndTime") if found[0].get(key)}
        said = from_service({**found[0], **times})
        kept = {key: said[key] for key in self.names() & said.keys()}
        arn = said.get("scheduledActionARN", "")
        return {**kept, "autoscalingGroupName": owner, "scheduledActionName": name, "arn": arn}

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        scaling = aws.client("autoscaling")
        said = {key: value for key, value in inputs.items() if key != "region" and (key not in SIZES or value != -1)}
        said = to_service(shape(scaling, "PutScheduledUpdateGroupAction"), said)
        scaling.put_scheduled_update_group_action(**said)

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        words = {"AutoScalingGroupName": before["autoscalingGroupName"], "ScheduledActionName": id}
        try:
            aws.client("autoscaling").delete_scheduled_action(**words)
        except ClientError as error:
            if code(error) != "ValidationError":
                raise


class OneTime(Kind):
    token, noun = "aws:scheduler/schedule:Schedule", "EventBridge Scheduler Schedule"
    arguments, known = one_time.ScheduleArgs, one_time._ScheduleState
    named = "name"
    defaults: ClassVar[Properties] = {"scheduleExpressionTimezone": "UTC", "state": "ENABLED"}
    replacing = frozenset({"name", "namePrefix", "groupName", "region"})
    computed = frozenset({"name", "groupName", "actionAfterCompletion"})
    kept = frozenset({"namePrefix"})

    def create(self, aws: Account, inputs: Properties) -> str:
        scheduler, name = aws.client("scheduler"), self.name_of(inputs)
        scheduler.create_schedule(**self._said(scheduler, "CreateSchedule", {**inputs, "name": name}))
        return f"{inputs.get('groupName', 'default')}/{name}"

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        owner, _, name = id.partition("/")
        try:
            found = aws.client("scheduler").get_schedule(GroupName=owner, Name=name)
        except ClientError as error:
            gone(error, "ResourceNotFoundException")
            return None
        times = {key: f"{found[key]:{FORMAT}}" for key in ("StartDate", "EndDate") if found.get(key)}
        said = from_service({**found, **times})
        return {**{key: said[key] for key in self.outputs() & said.keys()}, "name": name, "groupName": owner}

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        scheduler, (owner, _, name) = aws.client("scheduler"), id.partition("/")
        said = {**inputs, "name": name, "groupName": owner}
        scheduler.update_schedule(**self._said(scheduler, "UpdateSchedule", said))

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        owner, _, name = id.partition("/")
        try:
            aws.client("scheduler").delete_schedule(GroupName=owner, Name=name)
        except ClientError as error:
            gone(error, "ResourceNotFoundException")

    def _said(self, scheduler: Any, call: str, inputs: Properties) -> Properties:
        said = {key: value for key, value in inputs.items() if key not in self.kept | {"region"}}
        return dict(to_service(shape(scheduler, call), said))


def _group(scaling: Any, name: str) -> dict[str, Any] | None:
    found = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return found[0] if found else None


def _activities(scaling: Any, name: str) -> list[dict[str, Any]]:
    return list(scaling.describe_scaling_activities(AutoScalingGroupName=name)["Activities"])


def _called_here(key: str) -> str:
    return {value: name for name, value in TEMPLATE.items()}.get(key, key)


def _retag(scaling: Any, group: str, had: list[Properties], wanted: list[Properties]) -> None:
    where = {"ResourceId": group, "ResourceType": "auto-scaling-group"}
    dropped = {each["key"] for each in had} - {each["key"] for each in wanted}
    if dropped:
        scaling.delete_tags(Tags=[{**where, "Key": key} for key in sorted(dropped)])
    if wanted:
        said = [
            {**where, "Key": each["key"], "Value": each["value"], "PropagateAtLaunch": each["propagateAtLaunch"]}
            for each in wanted
        ]
        scaling.create_or_update_tags(Tags=said)


def _is_time(said: Any) -> bool:
    try:
        datetime.strptime(str(said), FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


def duration(said: str) -> float:
    """In seconds, of a text as `10m`, `1h30m` or `0`."""
    units, number, total = {"h": 3600.0, "m": 60.0, "s": 1.0}, "", 0.0
    for letter in said:
        if letter in units:
            total, number = total + float(number) * units[letter], ""
        else:
            number += letter
    return total
