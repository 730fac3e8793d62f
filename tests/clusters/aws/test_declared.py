"""What is declared for a run and for a lab, resource by resource, over many settings: as the record files have it.

EMS_RECORD=1 writes them anew; what changes then is to be read as code.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest

from ems.clusters.aws import declared, foundation, plan
from ems.clusters.aws.settings import wanted
from ems.lab import Lab
from tests.clusters.aws.test_plan import REGISTRATION, SAID

RECORDS = Path(__file__).with_name("declared")
SWEEP = {"job": {"function": "a:b", "sweep": {"n": [1, 2, 3]}}, "limits": {"max_hours": 2}}
MANY = dataclasses.replace(REGISTRATION, spec=json.dumps(SWEEP), points_total=2000)
LAB = Lab(Path(), "lab", uuid.UUID(int=1), "postgresql://there/lab", "s3://files/lab")
PLACE = {"kind": "aws", "region": "us-west-2", "subnets": ["subnet-1"], "image": "ami-1", "machine": ["c7i.large"]}
CASES: dict[str, Callable[[], Any]] = {
    "alone": lambda: run(REGISTRATION),
    "spot": lambda: run(REGISTRATION, spot=True, public_address=True, disk="/dev/sda1", disk_gb=100),
    "several": lambda: run(MANY, machines=20, spot=True, head={"machine": ["m7i.large"]}),
    "lab": lambda: foundation.made(LAB, "My cloud", PLACE),
    "lab_with_a_bucket": lambda: foundation.made(LAB, "cloud", {**PLACE, "bucket": "ours", "vpc": "vpc-1"}),
}


def run(registration: Any, **settings: Any) -> None:
    """What an experiment declares."""
    needed = wanted(settings, SAID)
    declared.groups(plan.machines(registration, needed), plan.minutes(registration), [])


class Recorded(pulumi.runtime.Mocks):
    """An engine that makes whatever is declared, and remembers with which inputs."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.made[f"{args.typ} {args.name}"] = args.inputs
        return f"id of {args.name}", {**args.inputs, "bucket": args.inputs.get("bucket", f"bucket of {args.name}")}

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        return {}


def made(program: Callable[[], Any]) -> dict[str, Any]:
    """Resources with their inputs."""
    engine = Recorded()
    asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks(engine)

    async def declare() -> None:
        program()

    pulumi.runtime.test(declare)()
    return engine.made


def lasting(found: dict[str, Any]) -> str:
    """Without what differs from day to day, and with each change of EMS's code."""
    text = json.dumps(found, indent=1, sort_keys=True)
    text = re.sub(r'("userData": )"[^"]+"', r'\1"(the start-up script)"', text)
    text = re.sub(r'("startTime": )"[^"]+"', r'\1"(in time)"', text)
    return re.sub(r"(-(?:head|workers))-[0-9a-f]{12}\b", r"\1-(hash)", text) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_what_is_declared_is_what_the_record_says(name: str) -> None:
    file, found = RECORDS / f"{name}.json", lasting(made(CASES[name]))
    if "EMS_RECORD" in os.environ:
        RECORDS.mkdir(exist_ok=True)
        file.write_text(found)
    assert found == file.read_text()


def test_a_thousand_machines_are_as_many_resources_as_two() -> None:
    counts = {len(made(lambda count=count: run(MANY, machines=count))) for count in (2, 100, 1000)}
    assert len(counts) == 1
