"""What instances are made of: security groups and launch templates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from botocore.exceptions import ClientError
from pulumi_aws.ec2 import launch_template, security_group

from tests.clusters.aws.provider_kinds import (
    Account,
    Kind,
    Properties,
    from_service,
    gone,
    pairs,
    shape,
    tag_specification,
    to_service,
)

PORTS_FREE_S = 900.0
TEMPLATE_FREE_S = 60.0
EVERYTHING = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
PEERS = {"cidrBlocks": ("IpRanges", "CidrIp"), "ipv6CidrBlocks": ("Ipv6Ranges", "CidrIpv6")}
PEERS |= {"prefixListIds": ("PrefixListIds", "PrefixListId"), "securityGroups": ("UserIdGroupPairs", "GroupId")}


class SecurityGroup(Kind):
    token, noun = "aws:ec2/securityGroup:SecurityGroup", "Security Group"
    arguments, known = security_group.SecurityGroupArgs, security_group._SecurityGroupState
    named, tags_are_map = "name", True
    defaults: ClassVar[Properties] = {"description": "Managed by Pulumi", "revokeRulesOnDelete": False}
    replacing = frozenset({"name", "namePrefix", "description", "vpcId", "region"})
    computed = frozenset({"name", "ingress", "egress", "vpcId"})
    unordered = frozenset({"ingress", "egress"})
    kept = frozenset({"revokeRulesOnDelete", "namePrefix"})

    def create(self, aws: Account, inputs: Properties) -> str:
        ec2 = aws.client("ec2")
        place = {"VpcId": inputs["vpcId"]} if inputs.get("vpcId") else {}
        id = ec2.create_security_group(
            GroupName=self.name_of(inputs),
            Description=inputs["description"],
            TagSpecifications=tag_specification("security-group", self.tags(aws, inputs)),
            **place,
        )["GroupId"]
        return str(id)

    def complete(self, aws: Account, id: str, inputs: Properties) -> None:
        words = {"GroupId": id, "IpPermissions": [EVERYTHING]}  # what the service gives each one
        aws.client("ec2").revoke_security_group_egress(**words)
        self.update(aws, id, {"ingress", "egress"} & inputs.keys(), {}, inputs)

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        try:
            (found,) = aws.client("ec2").describe_security_groups(GroupIds=[id])["SecurityGroups"]
        except ClientError as error:
            gone(error, "InvalidGroup.NotFound", "InvalidGroupId.NotFound")
            return None
        arn = f"arn:aws:ec2:{aws.region}:{found['OwnerId']}:security-group/{id}"
        return {
            "name": found["GroupName"],
            "arn": arn,
            "description": found["Description"],
            "ingress": _as_rules(id, found["IpPermissions"], before.get("ingress")),
            "egress": _as_rules(id, found["IpPermissionsEgress"], before.get("egress")),
            "ownerId": found["OwnerId"],
            "vpcId": found["VpcId"],
            **self.read_tags(aws, found.get("Tags", ()), before),
        }

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        ec2 = aws.client("ec2")
        for direction in ("ingress", "egress"):
            if direction in changed:
                had = {str(each): each for each in _permissions(id, before.get(direction) or ())}
                wanted = {str(each): each for each in _permissions(id, inputs.get(direction) or ())}
                if drop := [had[key] for key in had.keys() - wanted.keys()]:
                    getattr(ec2, f"revoke_security_group_{direction}")(GroupId=id, IpPermissions=drop)
                if add := [wanted[key] for key in wanted.keys() - had.keys()]:
                    getattr(ec2, f"authorize_security_group_{direction}")(GroupId=id, IpPermissions=add)
        if changed & {"tags", "tagsAll"}:
            retag(ec2, id, before.get("tagsAll", {}), self.tags(aws, inputs))

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        ec2 = aws.client("ec2")
        try:
            if before.get("revokeRulesOnDelete"):
                self.update(aws, id, {"ingress", "egress"}, before, {})
            aws.insist(lambda: ec2.delete_security_group(GroupId=id), PORTS_FREE_S)
        except ClientError as error:
            gone(error, "InvalidGroup.NotFound", "InvalidGroupId.NotFound")


class LaunchTemplate(Kind):
    token, noun = "aws:ec2/launchTemplate:LaunchTemplate", "EC2 Launch Template"
    arguments, known = launch_template.LaunchTemplateArgs, launch_template._LaunchTemplateState
    named, tags_are_map = "name", True
    replacing = frozenset({"name", "namePrefix", "region"})
    computed = frozenset({"name", "defaultVersion", "metadataOptions", "networkPerformanceOptions"})
    unordered = frozenset({"vpcSecurityGroupIds", "securityGroupNames"})
    kept = frozenset({"updateDefaultVersion", "namePrefix"})
    undone = frozenset({"secondaryInterfaces", "instanceRequirements"})
    about = frozenset({"name", "namePrefix", "tags", "description", "defaultVersion", "updateDefaultVersion", "region"})
    renamed: ClassVar[dict[str, str]] = {
        "vpcSecurityGroupIds": "securityGroupIds",
        "securityGroupNames": "securityGroups",
    }

    def create(self, aws: Account, inputs: Properties) -> str:
        ec2 = aws.client("ec2")
        made = ec2.create_launch_template(
            LaunchTemplateName=self.name_of(inputs),
            LaunchTemplateData=self._data(ec2, inputs),
            TagSpecifications=tag_specification("launch-template", self.tags(aws, inputs)),
            **_described(inputs),
        )
        return str(made["LaunchTemplate"]["LaunchTemplateId"])

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        ec2 = aws.client("ec2")
        try:
            (found,) = ec2.describe_launch_templates(LaunchTemplateIds=[id])["LaunchTemplates"]
            versions = ec2.describe_launch_template_versions(
                LaunchTemplateId=id, Versions=[str(found["LatestVersionNumber"])]
            )
        except ClientError as error:
            gone(error, "InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.VersionNotFound")
            return None
        latest = versions["LaunchTemplateVersions"][0]
        return {
            "name": found["LaunchTemplateName"],
            "arn": f"arn:aws:ec2:{aws.region}:123456789012:launch-template/{id}",
            "defaultVersion": found["DefaultVersionNumber"],
            "latestVersion": found["LatestVersionNumber"],
            "description": latest.get("VersionDescription", ""),
            **self._properties(latest["LaunchTemplateData"]),
            **self.read_tags(aws, found.get("Tags", ()), before),
        }

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        ec2 = aws.client("ec2")
        latest = int(before["latestVersion"])
        if changed - self.about or "description" in changed:
            made = ec2.create_launch_template_version(
                LaunchTemplateId=id, LaunchTemplateData=self._data(ec2, inputs), **_described(inputs)
            )
            latest = made["LaunchTemplateVersion"]["VersionNumber"]
        default = latest if inputs.get("updateDefaultVersion") else int(inputs.get("defaultVersion", 0))
        if default and default != int(before["defaultVersion"]):
            ec2.modify_launch_template(LaunchTemplateId=id, DefaultVersion=str(default))
        if changed & {"tags", "tagsAll"}:
            retag(ec2, id, before.get("tagsAll", {}), self.tags(aws, inputs))

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        """The service lets a template go that groups still use."""
        ec2 = aws.client("ec2")
        try:
            aws.insist(lambda: ec2.delete_launch_template(LaunchTemplateId=id), TEMPLATE_FREE_S)
        except ClientError as error:
            gone(error, "InvalidLaunchTemplateId.NotFound")

    def outputs_of_update(self, changed: set[str]) -> set[str]:
        return {"latestVersion", "defaultVersion"} if changed - {"tags", "tagsAll"} else set()

    def _data(self, ec2: Any, inputs: Properties) -> Properties:
        said = {self.renamed.get(key, key): value for key, value in inputs.items() if key not in self.about}
        if "networkInterfaces" in said:
            said["networkInterfaces"] = [
                _renamed(each, "securityGroups", "groups") for each in said["networkInterfaces"]
            ]
        return dict(to_service(shape(ec2, "CreateLaunchTemplate", "LaunchTemplateData"), said))

    def _properties(self, data: Properties) -> Properties:
        back = {value: key for key, value in self.renamed.items()}
        said = {back.get(key, key): value for key, value in from_service(data).items()}
        if "networkInterfaces" in said:
            said["networkInterfaces"] = [
                _renamed(each, "groups", "securityGroups") for each in said["networkInterfaces"]
            ]
        for each in said.get("tagSpecifications", ()):
            each["tags"] = {tag["key"]: tag["value"] for tag in each.get("tags", ())}
        return said


def _renamed(said: Properties, old: str, new: str) -> Properties:
    return {new if key == old else key: value for key, value in said.items()}


def _described(inputs: Properties) -> dict[str, str]:
    return {"VersionDescription": inputs["description"]} if inputs.get("description") else {}


def retag(ec2: Any, id: str, had: dict[str, str], wanted: dict[str, str]) -> None:
    if dropped := [{"Key": key} for key in sorted(had.keys() - wanted.keys())]:
        ec2.delete_tags(Resources=[id], Tags=dropped)
    if wanted:
        ec2.create_tags(Resources=[id], Tags=pairs(wanted))


# Rules: the service knows them one peer at a time, the package as lists of peers


def _permissions(own: str, rules: Iterable[Properties]) -> Iterator[dict[str, Any]]:
    """One for each peer."""
    for rule in rules:
        protocol = "-1" if rule["protocol"] == "all" else str(rule["protocol"])
        ports = {} if protocol == "-1" else {"FromPort": int(rule["fromPort"]), "ToPort": int(rule["toPort"])}
        more = {"Description": rule["description"]} if rule.get("description") else {}
        for key, (kind, name) in PEERS.items():
            for peer in rule.get(key) or ():
                yield {"IpProtocol": protocol, **ports, kind: [{name: peer, **more}]}
        if rule.get("self"):
            yield {"IpProtocol": protocol, **ports, "UserIdGroupPairs": [{"GroupId": own, **more}]}


def _as_rules(own: str, found: Iterable[dict[str, Any]], before: Any) -> list[Properties]:
    """As they were put before, if that says the same."""
    rules = [_as_rule(own, each) for each in found]
    was, now = ({str(each) for each in _permissions(own, some)} for some in (before or (), rules))
    return list(before) if before and was == now else rules


def _as_rule(own: str, found: dict[str, Any]) -> Properties:
    rule: Properties = {"protocol": found["IpProtocol"]}
    rule |= {"fromPort": found.get("FromPort", 0), "toPort": found.get("ToPort", 0)}
    for key, (kind, name) in PEERS.items():
        for peer in found.get(kind, ()):
            if peer.get("Description"):
                rule["description"] = peer["Description"]
            if peer[name] == own:
                rule["self"] = True
            else:
                rule.setdefault(key, []).append(peer[name])
    return rule
