"""AWS for tests: moto, with what moto lets pass or never does.

Groups refuse what the service refuses, in its words; launch templates keep its limits; schedules fire, by a clock that
tests set forward. Instances have what their template says, and whoever tests hears of each that begins or ends.
Sources: the API references of EC2, Auto Scaling and EventBridge Scheduler, and public reports of their errors.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from moto.autoscaling.exceptions import AutoscalingClientError
from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup, autoscaling_backends
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models.instances import Instance
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

from tests.clusters.aws.guarded import ADMINISTRATOR, guard
from tests.clusters.aws.strict import ENDED, activity, delete_group, make_strict, moment, resize

REGION = "us-east-1"
TICK_S = 0.1
SOLD_OUT = (
    "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have sufficient {} "
    "capacity in the Availability Zone you requested."
)
UNIVERSAL = "arn:aws:scheduler:::aws-sdk:autoscaling:deleteAutoScalingGroup"
Heard = Callable[[Instance], None]


@dataclass
class Trouble:
    """A call that fails some more times."""

    call: str
    code: str
    status: int
    times: int

    def answer(self) -> bytes:
        """As both query protocols have it."""
        error = f"<Error><Type>Sender</Type><Code>{self.code}</Code><Message>As the test wants it.</Message></Error>"
        return f"<ErrorResponse><Errors>{error}</Errors>{error}<RequestId>0</RequestId></ErrorResponse>".encode()


@dataclass
class Cloud:
    """One account in one region. `began`, `ended`: hear of instances, in the thread of whoever causes it."""

    url: str
    began: Heard = lambda instance: None
    ended: Heard = lambda instance: None
    refused: list[str] = field(default_factory=list)
    """What schedules were not allowed to do."""
    activities: list[dict[str, Any]] = field(default_factory=list)
    """What groups have tried, the oldest first."""
    sold_out: set[str] = field(default_factory=set)
    """Types of instances that no zone has just now."""
    troubles: list[Trouble] = field(default_factory=list)
    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    """Of calls, and of what happens by itself: a group that both filled at once would have too many instances."""
    _ahead: timedelta = timedelta()

    def now(self) -> datetime:
        """The cloud's time."""
        return datetime.now(UTC) + self._ahead

    def advance(self, seconds: float) -> None:
        """Set the cloud's clock forward; what is due then happens within a moment."""
        self._ahead += timedelta(seconds=seconds)

    def client(self, service: str) -> Any:
        """Of boto3, with an administrator's credentials."""
        keys = {"aws_access_key_id": ADMINISTRATOR, "aws_secret_access_key": "word"}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **keys)

    def instances(self) -> list[Instance]:
        """Those that are not terminated, of all groups and of none."""
        found = self._backend("ec2").all_instances()
        return [instance for instance in found if instance.state_code not in ENDED]

    def preempt(self, instance: Instance) -> None:
        """Take it away, as the service does: its group replaces it."""
        self.client("ec2").terminate_instances(InstanceIds=[instance.id])

    def trouble(self, call: str, code: str, status: int, times: int = 1) -> None:
        """Have the next calls whose text contains `call`, as Action=SetDesiredCapacity, fail, and do nothing."""
        self.troubles.append(Trouble(call, code, status, times))

    def may_begin(self, group: FakeAutoScalingGroup) -> bool:
        """Whether an instance of a group's type can be had; if not, that is an activity that failed."""
        if group.instance_type in self.sold_out:
            if not any(each["StatusCode"] == "Failed" for each in self.activities[-1:]):
                self.activities.append(activity(self, group, "Failed", SOLD_OUT.format(group.instance_type)))
            return False
        return True

    def _backend(self, service: str) -> Any:
        return get_backend(service)[DEFAULT_ACCOUNT_ID][REGION]  # type: ignore[call-overload]

    # Time

    def tick(self) -> None:
        """Have all happen that is due."""
        groups: AutoScalingBackend = autoscaling_backends[DEFAULT_ACCOUNT_ID][REGION]
        for group in list(groups.autoscaling_groups.values()):
            lacking = (group.desired_capacity or 0) - len(group.active_instances())
            if lacking > 0 and group.instance_type not in self.sold_out:
                group.replace_autoscaling_group_instances(lacking, group.get_propagated_tags())
        for name, action in list(groups.scheduled_actions.items()):
            if action.start_time and moment(action.start_time) <= self.now():
                del groups.scheduled_actions[name]
                if group := groups.autoscaling_groups.get(action.auto_scaling_group_name):
                    resize(group, action.min_size, action.max_size, action.desired_capacity)
        for found in list(self._backend("scheduler").schedule_groups.values()):
            for schedule in list(found.schedules.values()):
                if once(schedule.schedule_expression) <= self.now() and schedule.state == "ENABLED":
                    schedule.state = "FIRED"
                    self._invoke(groups, schedule.target)
                    if schedule.action_after_completion == "DELETE":
                        found.delete_schedule(schedule.name)

    def _invoke(self, groups: AutoScalingBackend, target: dict[str, Any]) -> None:
        """A schedule's universal target, in the name of its role."""
        wanted = json.loads(target.get("Input", "{}"))
        problem = self._problem(target)
        if not problem and wanted["AutoScalingGroupName"] in groups.autoscaling_groups:
            try:
                delete_group(groups, wanted["AutoScalingGroupName"], force=wanted.get("ForceDelete", False))
            except AutoscalingClientError as error:
                problem = error.message
        if problem:
            self.refused.append(problem)

    def _problem(self, target: dict[str, Any]) -> str:
        if target["Arn"] != UNIVERSAL:
            return f"not a target that is known here: {target['Arn']}"
        iam = get_backend("iam")[DEFAULT_ACCOUNT_ID]["aws"]
        roles = [role for role in iam.roles.values() if role.arn == target["RoleArn"]]
        if not roles:
            return f"no role {target['RoleArn']}"
        trust = json.loads(unquote(roles[0].assume_role_policy_document))
        if not any("scheduler.amazonaws.com" in said["Principal"].get("Service", "") for said in trust["Statement"]):
            return f"{target['RoleArn']} does not trust scheduler.amazonaws.com"
        policies = [json.loads(unquote(text)) for text in roles[0].policies.values()]
        allowed = [action for policy in policies for said in policy["Statement"] for action in listed(said["Action"])]
        if "autoscaling:DeleteAutoScalingGroup" not in allowed:
            return f"{target['RoleArn']} may not autoscaling:DeleteAutoScalingGroup"
        return ""


@contextmanager
def running(address: str = "127.0.0.1") -> Iterator[Cloud]:
    """A cloud with nothing in it, at an address of this machine."""
    server = ThreadedMotoServer(address, 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    cloud, is_over = Cloud(f"http://{host}:{port}"), threading.Event()

    def live() -> None:
        while not is_over.wait(TICK_S):
            with cloud.one_at_a_time:
                cloud.tick()

    ticking = threading.Thread(target=live, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        make_strict(cloud, patch)
        guard(patch)
        patch.setattr(DomainDispatcherApplication, "__call__", troubled(cloud, DomainDispatcherApplication.__call__))
        ticking.start()
        try:
            yield cloud
        finally:
            is_over.set()
            ticking.join()
            server.stop()
            for service in ("autoscaling", "ec2", "iam", "scheduler", "s3"):
                get_backend(service).reset()  # type: ignore[call-overload]


def troubled(cloud: Cloud, answer: Any) -> Any:
    """The service, which fails calls first that are to fail."""

    def call(self: Any, environ: dict[str, Any], start_response: Any) -> Any:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size)
        environ["wsgi.input"] = io.BytesIO(body)
        said = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}\n{body[:100_000].decode(errors='replace')}"
        for trouble in cloud.troubles:
            if trouble.times and trouble.call in said:
                trouble.times -= 1
                start_response(f"{trouble.status} Trouble", [("Content-Type", "text/xml")])
                return [trouble.answer()]
        with cloud.one_at_a_time:
            return answer(self, environ, start_response)

    return call


def once(expression: str) -> datetime:
    """When a one-time schedule is due; others never are."""
    if not expression.startswith("at("):
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromisoformat(expression[3:-1]).replace(tzinfo=UTC)


def listed(said: Any) -> list[str]:
    return said if isinstance(said, list) else [said]
