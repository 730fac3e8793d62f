"""What a stack file may say of a cloud of Amazon's, besides `kind: aws`.

In the place's own stack these are its defaults; an experiment that names the place may say some otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from ems.base.errors import UserError
from ems.stack import checks
from ems.stack.strict import AsTuple, Strict

Region = Annotated[str, checks.matching(r"[a-z]{2}(-[a-z]+)+-\d", "a region, as us-west-2")]
Bucket = Annotated[str, checks.matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket")]
Profile = Annotated[str, checks.matching(r"[\w+=,.@-]{1,128}", "the name of an instance profile")]
Subnet = Annotated[str, checks.matching(r"subnet-[0-9a-f]+", "the id of a subnet, as subnet-0abc")]
SecurityGroup = Annotated[str, checks.matching(r"sg-[0-9a-f]+", "the id of a security group, as sg-0abc")]
Vpc = Annotated[str, checks.matching(r"vpc-[0-9a-f]+", "the id of a network, as vpc-0abc")]
Image = Annotated[str, checks.matching(r"ami-[0-9a-f]+", "the id of an image, as ami-0abc")]
Type = Annotated[str, checks.matching(r"[a-z0-9-]+\.[a-z0-9-]+", "a type of instance, as c7i.large")]
Device = Annotated[str, checks.matching(r"/dev/[a-z0-9/]+", "a device, as /dev/sda1")]
Gigabytes = Annotated[int, checks.number(low=8, high=16_384, whole=True)]
Machines = Annotated[int, checks.number(low=0, high=1000, whole=True)]
NEEDED = ("region", "subnets", "image", "machine")
MADE = ("bucket", "instance_profile", "security_groups")  # with the stack of the place, unless that names them


class HeadSettings(Strict):
    """The machine that leads a sweep of several."""

    machine: Annotated[tuple[Type, ...], AsTuple] = Field((), description="Its types; left out: those of the others.")
    spot: bool | None = Field(None, description="Whether it may be taken away, for less money; left out: no.")


class Settings(Strict):
    """The keys of a cloud."""

    region: Region | None = Field(None, description="The region of all that is used.")
    bucket: Bucket | None = Field(
        None, description="The bucket by which runs get to their machines; left out: `ems up` of the stack makes one."
    )
    instance_profile: Profile | None = Field(
        None, description="The identity of the machines; left out: `ems up` of the stack makes one."
    )
    vpc: Vpc | None = Field(None, description="The network of the subnets; left out: the region's default one.")
    subnets: Annotated[tuple[Subnet, ...], AsTuple] = Field(
        (), description="Where machines may be, in several zones: what one of them has not, another may have."
    )
    security_groups: Annotated[tuple[SecurityGroup, ...], AsTuple] = Field(
        (),
        description="What machines may reach, and who reaches them; left out: `ems up` of the stack makes one by which "
        "they reach everything, and only each other reaches them.",
    )
    image: Image | None = Field(None, description="The image of the machines: Linux with Python 3.11 or newer.")
    machine: Annotated[tuple[Type, ...], AsTuple] = Field(
        (), description="Types of instances, the one that is wanted first; the next is taken where that is sold out."
    )
    machines: Machines | None = Field(
        None,
        description="Machines that compute points of a sweep beside the head, with a process for each CPU; left out: "
        "none, the head computes alone.",
    )
    head: HeadSettings = Field(HeadSettings(), description="How the head differs from these machines.")
    disk: Device | None = Field(
        None,
        description="What the image calls its disk, as `aws ec2 describe-images` says; left out: /dev/xvda.",
    )
    disk_gb: Gigabytes | None = Field(None, description="The disk of a machine in GB; left out: 30.")
    spot: bool | None = Field(None, description="Whether machines may be taken away, for less money; left out: no.")
    public_address: bool | None = Field(
        None, description="Whether machines have a public address, without which they need a NAT; left out: no."
    )


@dataclass(frozen=True)
class Wanted:
    """The settings of one run."""

    region: str
    bucket: str
    instance_profile: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    image: str
    machine: tuple[str, ...]
    machines: int
    head_machine: tuple[str, ...]
    head_spot: bool
    disk: str
    disk_gb: int
    spot: bool
    public_address: bool


def require(*said: Mapping[str, Any]) -> None:
    """UserError if settings lack what nobody can make."""
    if missing := [key for key in NEEDED if not any(each.get(key) for each in said)]:
        raise UserError(
            f"A cloud of AWS needs {', '.join(missing)}.", "Set it in the place's stack, see docs/places/aws.md"
        )


def wanted(*said: Mapping[str, Any]) -> Wanted:
    """What holds of settings as their JSON says them, those that count most first; UserError if some is missing."""

    def first(key: str, default: Any = None, part: str = "") -> Any:
        found = (each.get(key) if not part else (each.get(part) or {}).get(key) for each in said)
        return next((value for value in found if value not in (None, [], ())), default)

    require(*said)
    if missing := [key for key in MADE if not first(key)]:
        hint = "Run `ems up` of the place's stack, which makes what that does not name."
        raise UserError(f"A cloud of AWS has no {', '.join(missing)} yet.", hint)
    return Wanted(
        region=first("region"),
        bucket=first("bucket"),
        instance_profile=first("instance_profile"),
        subnets=tuple(first("subnets")),
        security_groups=tuple(first("security_groups")),
        image=first("image"),
        machine=tuple(first("machine")),
        machines=first("machines", 0),
        head_machine=tuple(first("machine", first("machine"), "head")),
        head_spot=first("spot", default=False, part="head"),
        disk=first("disk", "/dev/xvda"),
        disk_gb=first("disk_gb", 30),
        spot=first("spot", default=False),
        public_address=first("public_address", default=False),
    )
