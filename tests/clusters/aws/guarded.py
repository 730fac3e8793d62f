"""Who may do what in the AWS of tests: all but its administrator only what their policies say.

moto knows actions and resources of policies once it is told to; here it is always, and the resource of a call of Auto
Scaling is the group that it names, as it is with the service. Conditions are not looked at.
"""

from __future__ import annotations

from typing import Any

import pytest
from moto import settings
from moto.autoscaling.models import autoscaling_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.authorization import ActionAuthenticatorMixin

ADMINISTRATOR = "id"  # an access key, which may everything
GROUP = "arn:aws:autoscaling:{region}:123456789012:autoScalingGroup:1:autoScalingGroupName/{name}"


def guard(patch: pytest.MonkeyPatch) -> None:
    """Have calls refused that their caller may not make."""
    check = ActionAuthenticatorMixin._authenticate_and_authorize_action

    def checked(self: Any, kind: type, resource: str = "*") -> None:
        if f"Credential={ADMINISTRATOR}/" not in self.headers.get("Authorization", ""):
            check(self, kind, _group(self) if resource == "*" else resource)

    patch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    patch.setattr(ActionAuthenticatorMixin, "_authenticate_and_authorize_action", checked)


def _group(call: Any) -> str:
    """What a call is about, if that is a group; else anything."""
    name = (call.querystring.get("AutoScalingGroupName") or [""])[0]
    instance = (call.querystring.get("InstanceId") or [""])[0]
    for group in autoscaling_backends[DEFAULT_ACCOUNT_ID][call.region].autoscaling_groups.values():
        if instance and instance in {state.instance.id for state in group.instance_states}:
            name = group.name
    return GROUP.format(region=call.region, name=name) if name else "*"
