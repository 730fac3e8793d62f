"""What a run is made of in the cloud follows from what is wanted, and from nothing else."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import pytest

from ems.base.errors import UserError
from ems.clusters.aws import plan
from ems.clusters.aws.settings import NEEDED, wanted
from tests.node.mailboxes import COMMAND

SAID = {
    "region": "us-west-2", "bucket": "our-lab", "instance_profile": "node", "subnets": ["subnet-1", "subnet-2"],
    "security_groups": ["sg-1"], "image": "ami-1", "machine": ["c7i.large"],
}  # fmt: skip
SPEC = {"cluster": {"stack": "cloud"}, "job": {"command": ["true"]}, "limits": {"max_hours": 2}}
REGISTRATION = dataclasses.replace(COMMAND, spec=json.dumps(SPEC))
USER_DATA_BYTES = 16_384


def test_the_same_gives_the_same_and_another_template_has_another_name():
    (first,), (again,) = (plan.machines(REGISTRATION, wanted(SAID)) for _ in range(2))
    (other,) = plan.machines(REGISTRATION, wanted({"machine": ["c7i.xlarge"]}, SAID))
    assert first == again and first.group == other.group and first.template != other.template
    assert first.template.startswith(first.group)


def test_the_start_up_script_is_one_of_sh_short_enough_and_sets_its_timer_first():
    script = plan.machines(REGISTRATION, wanted(SAID))[0].script
    assert len(script.encode()) < USER_DATA_BYTES * 3 / 4
    subprocess.run(["sh", "-n"], input=script.encode(), check=True)
    commands = [line for line in script.splitlines() if line and not line.startswith(("#", "leave()"))]
    assert commands[0].startswith("shutdown -P +180 ")


def test_what_experiment_and_stack_leave_out_is_named():
    with pytest.raises(UserError) as caught:
        wanted({}, {"region": "us-west-2"})
    assert all(key in caught.value.message for key in NEEDED if key != "region")


def test_a_run_without_a_limit_is_refused():
    endless = dataclasses.replace(REGISTRATION, spec=json.dumps({"limits": {"max_hours": None}}))
    with pytest.raises(UserError, match="needs a limit"):
        plan.minutes(endless)


def test_all_has_the_tags_by_which_bills_and_people_find_it():
    tags = plan.machines(REGISTRATION, wanted(SAID))[0].tags
    assert tags["ems:experiment"] == REGISTRATION.id and tags["ems:funding"] == REGISTRATION.funding
