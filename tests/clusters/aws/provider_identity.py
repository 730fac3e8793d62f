"""Roles, their policies, and the profiles that give them to instances."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import unquote

from botocore.exceptions import ClientError
from pulumi_aws.iam import instance_profile, role, role_policy

from tests.clusters.aws.provider_kinds import Account, Kind, Properties, gone, meaning, pairs
from tests.clusters.aws.provider_names import UNKNOWN, Problem

PROPAGATES_S = 120.0


class Role(Kind):
    token, noun = "aws:iam/role:Role", "IAM Role"
    arguments, known = role.RoleArgs, role._RoleState
    named, tags_are_map = "name", True
    defaults: ClassVar[Properties] = {"forceDetachPolicies": False, "maxSessionDuration": 3600, "path": "/"}
    replacing = frozenset({"name", "namePrefix", "path"})
    computed = frozenset({"name", "inlinePolicies", "managedPolicyArns"})
    json_texts = frozenset({"assumeRolePolicy"})
    unordered = frozenset({"managedPolicyArns", "inlinePolicies"})
    kept = frozenset({"forceDetachPolicies", "namePrefix"})
    undone = frozenset({"permissionsBoundary"})

    def wrong(self, inputs: Properties) -> Iterable[Problem]:
        return no_json("assumeRolePolicy", inputs)

    def create(self, aws: Account, inputs: Properties) -> str:
        iam, name = aws.client("iam"), self.name_of(inputs)
        more = {"Description": inputs["description"]} if inputs.get("description") else {}
        iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
            MaxSessionDuration=int(inputs["maxSessionDuration"]),
            Path=inputs["path"],
            Tags=pairs(self.tags(aws, inputs)),
            **more,
        )
        return name

    def complete(self, aws: Account, id: str, inputs: Properties) -> None:
        _attach(aws.client("iam"), id, inputs, {})

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        iam = aws.client("iam")
        try:
            found = iam.get_role(RoleName=id)["Role"]
        except ClientError as error:
            gone(error, "NoSuchEntity")
            return None
        attached = iam.list_attached_role_policies(RoleName=id)["AttachedPolicies"]
        inline = [
            {"name": name, "policy": written(iam.get_role_policy(RoleName=id, PolicyName=name)["PolicyDocument"], "")}
            for name in iam.list_role_policies(RoleName=id)["PolicyNames"]
        ]
        return {
            "name": id,
            "arn": found["Arn"],
            "assumeRolePolicy": written(found["AssumeRolePolicyDocument"], before.get("assumeRolePolicy")),
            "createDate": f"{found['CreateDate']:%Y-%m-%dT%H:%M:%SZ}",
            "description": found.get("Description", ""),
            "inlinePolicies": inline,
            "managedPolicyArns": [each["PolicyArn"] for each in attached],
            "maxSessionDuration": found.get("MaxSessionDuration", 3600),
            "path": found["Path"],
            "uniqueId": found["RoleId"],
            **self.read_tags(aws, found.get("Tags", ()), before),
        }

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        iam = aws.client("iam")
        if "assumeRolePolicy" in changed:
            iam.update_assume_role_policy(RoleName=id, PolicyDocument=inputs["assumeRolePolicy"])
        if changed & {"description", "maxSessionDuration"}:
            longest = int(inputs["maxSessionDuration"])
            iam.update_role(RoleName=id, Description=inputs.get("description", ""), MaxSessionDuration=longest)
        if changed & {"tags", "tagsAll"}:
            retag(iam, "role", {"RoleName": id}, before.get("tagsAll", {}), self.tags(aws, inputs))
        if changed & {"managedPolicyArns", "inlinePolicies"}:
            _attach(iam, id, inputs, {key: before.get(key) for key in changed})

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        iam = aws.client("iam")
        try:
            for profile in iam.list_instance_profiles_for_role(RoleName=id)["InstanceProfiles"]:
                iam.remove_role_from_instance_profile(InstanceProfileName=profile["InstanceProfileName"], RoleName=id)
            if before.get("forceDetachPolicies") or before.get("managedPolicyArns"):
                for each in iam.list_attached_role_policies(RoleName=id)["AttachedPolicies"]:
                    iam.detach_role_policy(RoleName=id, PolicyArn=each["PolicyArn"])
            if before.get("forceDetachPolicies") or before.get("inlinePolicies"):
                for name in iam.list_role_policies(RoleName=id)["PolicyNames"]:
                    iam.delete_role_policy(RoleName=id, PolicyName=name)
            aws.insist(lambda: iam.delete_role(RoleName=id), PROPAGATES_S)
        except ClientError as error:
            gone(error, "NoSuchEntity")


class RolePolicy(Kind):
    token, noun = "aws:iam/rolePolicy:RolePolicy", "IAM Role Policy"
    arguments, known = role_policy.RolePolicyArgs, role_policy._RolePolicyState
    named = "name"
    replacing = frozenset({"name", "namePrefix", "role"})
    computed = frozenset({"name"})
    json_texts = frozenset({"policy"})
    kept = frozenset({"namePrefix"})

    def wrong(self, inputs: Properties) -> Iterable[Problem]:
        return no_json("policy", inputs)

    def create(self, aws: Account, inputs: Properties) -> str:
        """A policy of the same name is written over, as the service does it."""
        name = self.name_of(inputs)
        words = {"RoleName": inputs["role"], "PolicyName": name, "PolicyDocument": inputs["policy"]}
        aws.client("iam").put_role_policy(**words)
        return f"{inputs['role']}:{name}"

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        owner, _, name = id.partition(":")
        try:
            found = aws.client("iam").get_role_policy(RoleName=owner, PolicyName=name)
        except ClientError as error:
            gone(error, "NoSuchEntity")
            return None
        return {"name": name, "role": owner, "policy": written(found["PolicyDocument"], before.get("policy"))}

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        owner, _, name = id.partition(":")
        words = {"RoleName": owner, "PolicyName": name, "PolicyDocument": inputs["policy"]}
        aws.client("iam").put_role_policy(**words)

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        owner, _, name = id.partition(":")
        try:
            aws.client("iam").delete_role_policy(RoleName=owner, PolicyName=name)
        except ClientError as error:
            gone(error, "NoSuchEntity")


class InstanceProfile(Kind):
    token, noun = "aws:iam/instanceProfile:InstanceProfile", "IAM Instance Profile"
    arguments, known = instance_profile.InstanceProfileArgs, instance_profile._InstanceProfileState
    named, tags_are_map = "name", True
    defaults: ClassVar[Properties] = {"path": "/"}
    replacing = frozenset({"name", "namePrefix", "path"})
    computed = frozenset({"name"})
    kept = frozenset({"namePrefix"})

    def create(self, aws: Account, inputs: Properties) -> str:
        name = self.name_of(inputs)
        words = {"InstanceProfileName": name, "Path": inputs["path"], "Tags": pairs(self.tags(aws, inputs))}
        aws.client("iam").create_instance_profile(**words)
        return name

    def complete(self, aws: Account, id: str, inputs: Properties) -> None:
        if inputs.get("role"):
            aws.client("iam").add_role_to_instance_profile(InstanceProfileName=id, RoleName=inputs["role"])

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        try:
            found = aws.client("iam").get_instance_profile(InstanceProfileName=id)["InstanceProfile"]
        except ClientError as error:
            gone(error, "NoSuchEntity")
            return None
        return {
            "name": id,
            "arn": found["Arn"],
            "createDate": f"{found['CreateDate']:%Y-%m-%dT%H:%M:%SZ}",
            "path": found["Path"],
            "role": next((each["RoleName"] for each in found["Roles"]), None),
            "uniqueId": found["InstanceProfileId"],
            **self.read_tags(aws, found.get("Tags", ()), before),
        }

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        iam = aws.client("iam")
        if "role" in changed:
            if before.get("role"):
                iam.remove_role_from_instance_profile(InstanceProfileName=id, RoleName=before["role"])
            if inputs.get("role"):
                iam.add_role_to_instance_profile(InstanceProfileName=id, RoleName=inputs["role"])
        if changed & {"tags", "tagsAll"}:
            where = {"InstanceProfileName": id}
            retag(iam, "instance_profile", where, before.get("tagsAll", {}), self.tags(aws, inputs))

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        iam = aws.client("iam")
        try:
            for each in iam.get_instance_profile(InstanceProfileName=id)["InstanceProfile"]["Roles"]:
                iam.remove_role_from_instance_profile(InstanceProfileName=id, RoleName=each["RoleName"])
            aws.insist(lambda: iam.delete_instance_profile(InstanceProfileName=id), PROPAGATES_S)
        except ClientError as error:
            gone(error, "NoSuchEntity")


def _attach(iam: Any, name: str, inputs: Properties, before: Properties) -> None:
    """The policies that a role's own inputs name, and none that they named before."""
    wanted, had = inputs.get("managedPolicyArns") or [], before.get("managedPolicyArns") or []
    for arn in set(had) - set(wanted):
        iam.detach_role_policy(RoleName=name, PolicyArn=arn)
    for arn in set(wanted) - set(had):
        iam.attach_role_policy(RoleName=name, PolicyArn=arn)
    inline = {each["name"]: each["policy"] for each in inputs.get("inlinePolicies") or ()}
    for each in before.get("inlinePolicies") or ():
        if each["name"] not in inline:
            iam.delete_role_policy(RoleName=name, PolicyName=each["name"])
    for policy, document in inline.items():
        iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=document)


def retag(iam: Any, what: str, where: dict[str, str], had: dict[str, str], wanted: dict[str, str]) -> None:
    if dropped := sorted(had.keys() - wanted.keys()):
        getattr(iam, f"untag_{what}")(**where, TagKeys=dropped)
    if wanted:
        getattr(iam, f"tag_{what}")(**where, Tags=pairs(wanted))


def written(document: Any, before: Any) -> str:
    """A policy as a text: as it was written before, if that says the same."""
    found = meaning(unquote(document)) if isinstance(document, str) else document
    return str(before) if before and meaning(before) == found else json.dumps(found)


def no_json(key: str, inputs: Properties) -> Iterable[Problem]:
    if inputs.get(key) != UNKNOWN and not isinstance(meaning(inputs.get(key)), dict):
        yield Problem(key, f"\"{key}\" contains an invalid JSON policy. Examine values at '{key}'.")
