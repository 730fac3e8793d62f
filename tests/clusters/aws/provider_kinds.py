"""What all types of resources have in common: defaults, differences, and how inputs become calls of the service."""

from __future__ import annotations

import functools
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from pulumi._types import input_type_py_to_pulumi_names

from tests.clusters.aws.provider_names import DEFAULTS, UNKNOWN, Problem, problems

Properties = dict[str, Any]
POLL_S = 0.2
IN_USE = {"DependencyViolation", "InvalidGroup.InUse", "DeleteConflict", "ResourceInUse", "ScalingActivityInProgress"}
TRIES = 3  # of a call that is throttled, or that the service fails to answer


class Refused(Exception):
    """What the provider itself says no to, or has waited for in vain."""


@dataclass(frozen=True)
class Account:
    """The cloud, as one operation reaches it. `patience_s`: what `customTimeouts` say, else None."""

    url: str
    region: str
    default_tags: dict[str, str] = field(default_factory=dict)
    patience_s: float | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def client(self, service: str) -> Any:
        return connected(service, self.url, self.region)

    def wait(self, is_so: Callable[[], bool], usual_s: float, awaited: Callable[[], str]) -> None:
        """Refused, with what was `awaited`, if it does not become so in time."""
        give_up_at = time.monotonic() + (self.patience_s or usual_s)
        while not is_so():
            if time.monotonic() > give_up_at:
                raise Refused(f"timeout while waiting for {awaited()}")
            if self.cancelled.wait(POLL_S):
                raise Refused(f"cancelled while waiting for {awaited()}")

    def insist(self, call: Callable[[], object], usual_s: float) -> None:
        """Repeat what the service refuses because something is still in use; at last its own words."""
        give_up_at = time.monotonic() + (self.patience_s or usual_s)
        while True:
            try:
                call()
            except ClientError as error:
                is_late = time.monotonic() > give_up_at
                if code(error) not in IN_USE or is_late or self.cancelled.wait(POLL_S):
                    raise
            else:
                return


@functools.cache
def connected(service: str, url: str, region: str) -> Any:
    """A client of boto3: to make one takes longer than most calls."""
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "word"}
    config = Config(retries={"mode": "standard", "total_max_attempts": TRIES})
    return boto3.client(service, endpoint_url=url, region_name=region, config=config, **keys)


class Kind:
    """One type of resource. Its methods may raise ClientError and Refused."""

    token: ClassVar[str]
    noun: ClassVar[str]
    """In messages, as in `creating IAM Role (ems)`."""
    arguments: ClassVar[type]
    known: ClassVar[type]
    """The class of the real package that has all properties."""
    named: ClassVar[str] = ""
    """The input that is made up where it is not given."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    replacing: ClassVar[frozenset[str]] = frozenset()
    computed: ClassVar[frozenset[str]] = frozenset()
    """Inputs that the service fills where they are not given."""
    json_texts: ClassVar[frozenset[str]] = frozenset()
    unordered: ClassVar[frozenset[str]] = frozenset()
    kept: ClassVar[frozenset[str]] = frozenset()
    """Inputs that only the provider knows."""
    undone: ClassVar[frozenset[str]] = frozenset()
    """Inputs that the real provider knows and this one does not carry out."""
    tags_are_map: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    """Whether the state after an update that failed is the one before; else it is as if that had been made."""

    def create(self, aws: Account, inputs: Properties) -> str:
        """The id of what is there then."""
        raise NotImplementedError

    def complete(self, aws: Account, id: str, inputs: Properties) -> None:
        """What else a create does. If it fails, the resource stays in the state, as one that is not finished."""

    def own_id(self, id: str) -> str:
        """The id, of what it is imported by."""
        return id

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        """All that can be read; `before` is the state, if there is one. None only if there is no such thing."""
        raise NotImplementedError

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        raise NotImplementedError

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        """Also if it is gone."""
        raise NotImplementedError

    def outputs_of_update(self, changed: set[str]) -> set[str]:
        """Which outputs are not known before an update is made."""
        return set()

    def wrong(self, inputs: Properties) -> Iterable[Problem]:
        """What is wrong beyond the names."""
        return ()

    # What follows is the same for all.

    def names(self) -> set[str]:
        return set(input_type_py_to_pulumi_names(self.arguments).values())

    def outputs(self) -> set[str]:
        return set(input_type_py_to_pulumi_names(self.known).values())

    def check(self, name: str, old: Properties, news: Properties) -> tuple[Properties, list[Problem]]:
        """The inputs with defaults, and what is wrong with them."""
        given = {key: value for key, value in news.items() if value is not None and key != DEFAULTS}
        given |= {key: json.dumps(given[key]) for key in self.json_texts if isinstance(given.get(key), dict)}
        found = [*problems(self.arguments, given)]
        undone = self.undone & given.keys()
        found += [Problem(key, f"The AWS of tests does not carry out `{key}` of {self.noun}.") for key in undone]
        if not found:
            found += self.wrong(given)
        filled = dict(self.defaults)
        if self.named and f"{self.named}Prefix" not in given:
            was_made_up = self.named in old.get(DEFAULTS, ())
            filled[self.named] = old[self.named] if was_made_up else self._made_up(name)
        missing = {key: value for key, value in filled.items() if key not in given}
        return {**missing, **given, DEFAULTS: sorted(missing)}, found

    def _made_up(self, name: str) -> str:
        made = f"{name}-{secrets.token_hex(4)[:7]}"
        return made.lower() if self.named == "bucket" else made

    def changed(
        self, aws: Account, state: Properties, old: Properties, news: Properties, ignored: Iterable[str]
    ) -> set[str]:
        """Which inputs differ from the state, as far as they are looked after."""
        found = {
            key
            for key in self.names()
            if (
                not self.is_same(key, state.get(key), news[key], old.get(key))
                if key in news
                else self._gone(key, state)
            )
        }
        if self.tags_are_map and state.get("tagsAll", {}) != self.tags(aws, news) and UNKNOWN not in str(news):
            found.add("tagsAll")
        spared = {each.partition(".")[0].partition("[")[0] for each in ignored}
        return found - spared - ({"tagsAll"} if "tags" in spared else set())

    def _gone(self, key: str, state: Properties) -> bool:
        return key not in self.computed and key != "region" and not is_empty(state.get(key))

    def is_same(self, key: str, there: Any, wanted: Any, was_wanted: Any) -> bool:
        if wanted == UNKNOWN:
            return False
        if key in self.json_texts:
            return meaning(there) == meaning(wanted)
        if key in self.unordered and isinstance(there, list) and isinstance(wanted, list):
            there, wanted, was_wanted = (sorted(each or [], key=text) for each in (there, wanted, was_wanted))
        return same(there, wanted, was_wanted)

    def must_go_first(self, news: Properties) -> bool:
        """Whether a name that was given stands in the way of what replaces this."""
        return bool(self.named) and self.named in news and self.named not in news.get(DEFAULTS, ())

    def name_of(self, inputs: Properties) -> str:
        """The name, or one that begins as `namePrefix` says."""
        if self.named in inputs:
            return str(inputs[self.named])
        return f"{inputs[f'{self.named}Prefix']}{time.strftime('%Y%m%d%H%M%S')}{secrets.token_hex(6)}"

    def tags(self, aws: Account, inputs: Properties) -> dict[str, str]:
        """All that the resource is to have."""
        return {**aws.default_tags, **inputs.get("tags", {})} if self.tags_are_map else {}

    def read_tags(self, aws: Account, found: Iterable[Mapping[str, str]], before: Properties) -> Properties:
        """Both properties."""
        every = {each["Key"]: each["Value"] for each in found if not each["Key"].startswith("aws:")}
        own = before.get("tags") or {}
        shown = {key: value for key, value in every.items() if key in own or aws.default_tags.get(key) != value}
        return {"tags": shown, "tagsAll": every}


def same(there: Any, wanted: Any, was_wanted: Any = None) -> bool:
    """Whether nothing is to be changed: what nobody ever asked for does not count, nor how a number is written."""
    if isinstance(wanted, dict):
        there, was_wanted = there or {}, was_wanted if isinstance(was_wanted, dict) else {}
        dropped = (was_wanted.keys() - wanted.keys() - {DEFAULTS}) & there.keys()
        pairs = ((there.get(key), value, was_wanted.get(key)) for key, value in wanted.items() if key != DEFAULTS)
        return isinstance(there, dict) and not dropped and all(same(*pair) for pair in pairs)
    if isinstance(wanted, list):
        was = was_wanted if isinstance(was_wanted, list) and len(was_wanted) == len(wanted) else [None] * len(wanted)
        there = there or []
        return len(there) == len(wanted) and all(map(same, there, wanted, was))
    return plain(there) == plain(wanted)


def plain(value: Any) -> str:
    if is_empty(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def is_empty(value: Any) -> bool:
    """Whether a value says as little as none."""
    return value in (None, False, 0, "", "false", [], {})


def meaning(value: Any) -> Any:
    """Of a text that is JSON."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag_specification(resource: str, tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """For calls that create something of EC2."""
    return [{"ResourceType": resource, "Tags": pairs(tags)}] if tags else []


def gone(error: ClientError, *codes: str) -> None:
    """Nothing, if the service says so by one of these codes; else the error."""
    if code(error) not in codes:
        raise error


# Between properties and the service's own words


def to_service(shape: Any, value: Any) -> Any:
    """What a call takes: names as the service writes them, texts and numbers as its types are."""
    if shape.type_name == "structure":
        members = {name.lower(): name for name in shape.members}
        lacking = [key for key in value if key != DEFAULTS and key.lower() not in members]
        if lacking:
            raise Refused(f"The AWS of tests does not carry out {', '.join(lacking)} here.")
        named = {members[key.lower()]: each for key, each in value.items() if key != DEFAULTS and each is not None}
        return {name: to_service(shape.members[name], each) for name, each in named.items()}
    if shape.type_name == "list":
        items = pairs(value) if isinstance(value, dict) else value
        return [to_service(shape.member, each) for each in items]
    if shape.type_name == "boolean":
        return value in (True, "true")
    if shape.type_name in {"integer", "long"}:
        return int(float(value))
    return value if shape.type_name in {"timestamp", "map"} else plain(value) or str(value)


def from_service(value: Any) -> Any:
    """The properties that an answer says; without what is not set."""
    if isinstance(value, dict):
        said = {camel(key): from_service(each) for key, each in value.items() if each is not None}
        return {key: each for key, each in said.items() if each not in ({}, [])}
    if isinstance(value, list):
        return [from_service(each) for each in value]
    return value


def camel(name: str) -> str:
    """As `imageId` of `ImageId`, and `id` of `ID`."""
    return name.lower() if name.isupper() else name[0].lower() + name[1:]


def shape(client: Any, call: str, *members: str) -> Any:
    """What a call takes, or a member of that."""
    found = client.meta.service_model.operation_model(call).input_shape
    for member in members:
        found = found.members[member]
    return found
