"""Pulumi's AWS provider for tests: it stands between the real engine, with the real package, and the AWS of tests.

It refuses what the real one refuses, waits where that waits, and knows of the cloud only what the cloud answers. What
it does not carry out it says. Sources: the schemas in the package, and the documentation of Terraform's provider,
which the real one is made of.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from botocore.exceptions import BotoCoreError, ClientError
from google.protobuf import any_pb2, empty_pb2, json_format, struct_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from ems.base.threads import Threads
from tests.clusters.aws import provider_groups, provider_identity, provider_machines, provider_storage
from tests.clusters.aws.cloud import REGION, Cloud
from tests.clusters.aws.provider_kinds import Account, Kind, Properties, Refused, is_empty
from tests.clusters.aws.provider_names import DEFAULTS, UNKNOWN

VERSION = "7.51.1"
DIFF = provider_pb2.DiffResponse
KINDS: Mapping[str, Kind] = {
    kind.token: kind
    for kind in (
        provider_storage.Bucket(),
        provider_storage.BucketPublicAccessBlock(),
        provider_storage.BucketLifecycleConfiguration(),
        provider_identity.Role(),
        provider_identity.RolePolicy(),
        provider_identity.InstanceProfile(),
        provider_machines.SecurityGroup(),
        provider_machines.LaunchTemplate(),
        provider_groups.Group(),
        provider_groups.Schedule(),
        provider_groups.OneTime(),
    )
}


@contextmanager
def attached(cloud: Cloud) -> Iterator[int]:
    """The port of a provider of `cloud`.

    `PULUMI_DEBUG_PROVIDERS=aws:PORT` in the environment has engines use it, also those that `ems` starts.
    """
    provider = Provider(cloud.url)
    server = grpc.server(Threads())
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        provider.close()
        server.stop(grace=None).wait()


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """Serves any number of engines, each with providers of its own settings."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._settings: dict[str, Properties] = {}
        self._cancelled: dict[str, threading.Event] = {}

    def Attach(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "aws", "version": VERSION}))

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return DIFF(changes=DIFF.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        """Each provider of an engine has a connection of its own, by which its later calls are known."""
        said = {key: parsed(value) for key, value in properties(request.args).items()}
        self._settings[context.peer()], self._cancelled[context.peer()] = said, threading.Event()
        return provider_pb2.ConfigureResponse(supportsPreview=True, acceptSecrets=False, acceptResources=False)

    def Cancel(self, request: Any, context: Any) -> Any:
        if context.peer() in self._cancelled:
            self._cancelled[context.peer()].set()
        return empty_pb2.Empty()

    def close(self) -> None:
        """End what waits, of all engines."""
        for each in list(self._cancelled.values()):
            each.set()

    def Invoke(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"The AWS of tests has no function {request.tok}.")

    def Check(self, request: Any, context: Any) -> Any:
        name = request.urn.split("::")[-1]
        kind = self._kind(request.urn, context)
        inputs, found = kind.check(name, properties(request.olds), properties(request.news))
        failures = [provider_pb2.CheckFailure(property=each.path, reason=each.reason) for each in found]
        return provider_pb2.CheckResponse(inputs=struct(inputs), failures=failures)

    def Diff(self, request: Any, context: Any) -> Any:
        kind, state, news = self._kind(request.urn, context), properties(request.olds), properties(request.news)
        old, aws = properties(request.old_inputs), self._account(context, news)
        changed = kind.changed(aws, state, old, news, request.ignoreChanges)
        replacing = sorted(changed & kind.replacing)
        kinds = provider_pb2.PropertyDiff
        detailed = {
            key: kinds(kind=kinds.UPDATE_REPLACE if key in replacing else kinds.UPDATE) for key in sorted(changed)
        }
        return DIFF(
            changes=DIFF.DIFF_SOME if changed else DIFF.DIFF_NONE,
            diffs=sorted(changed),
            replaces=replacing,
            detailedDiff=detailed,
            hasDetailedDiff=True,
            deleteBeforeReplace=bool(replacing) and kind.must_go_first(news),
        )

    def Create(self, request: Any, context: Any) -> Any:
        kind, inputs = self._kind(request.urn, context), properties(request.properties)
        if request.preview:
            foreseen = {**dict.fromkeys(kind.outputs() - kind.names() | kind.computed, UNKNOWN), **inputs}
            return provider_pb2.CreateResponse(properties=struct(without_defaults(foreseen)))
        aws = self._account(context, inputs, request.timeout)
        shown = inputs.get(kind.named) or inputs.get("bucket") or request.urn.split("::")[-1]
        with telling(context, f"creating {kind.noun} ({shown})"):
            id = kind.create(aws, inputs)
            try:
                kind.complete(aws, id, inputs)
            except (ClientError, Refused) as error:
                reason = f"completing {kind.noun} ({id}): {in_words(error)}"
                unfinished(context, id, state_of(kind, aws, id, inputs), inputs, reason)
            return provider_pb2.CreateResponse(id=id, properties=struct(state_of(kind, aws, id, inputs)))

    def Update(self, request: Any, context: Any) -> Any:
        kind, before, inputs = self._kind(request.urn, context), properties(request.olds), properties(request.news)
        aws = self._account(context, inputs, request.timeout)
        changed = kind.changed(aws, before, properties(request.old_inputs), inputs, request.ignoreChanges)
        if request.preview:
            foreseen = {**before, **inputs, **dict.fromkeys(kind.outputs_of_update(changed), UNKNOWN)}
            return provider_pb2.UpdateResponse(properties=struct(without_defaults(foreseen)))
        with telling(context, doing := f"updating {kind.noun} ({request.id})"):
            try:
                kind.update(aws, request.id, changed, before, inputs)
            except (ClientError, Refused) as error:
                foreseen = before if kind.remembers else {**before, **without_defaults(inputs)}
                unfinished(context, request.id, foreseen, {}, f"{doing}: {in_words(error)}")
            return provider_pb2.UpdateResponse(properties=struct(state_of(kind, aws, request.id, inputs)))

    def Read(self, request: Any, context: Any) -> Any:
        kind, before = self._kind(request.urn, context), properties(request.properties)
        aws, inputs = self._account(context, before, request.timeout), properties(request.inputs)
        with telling(context, f"reading {kind.noun} ({request.id})"):
            state = state_of(kind, aws, request.id, before)
            if state is None:
                return provider_pb2.ReadResponse()
            found = inputs_of(kind, state, inputs) if inputs else imported(kind, state)
            id = kind.own_id(request.id)
            return provider_pb2.ReadResponse(id=id, properties=struct(state), inputs=struct(found))

    def Delete(self, request: Any, context: Any) -> Any:
        kind, before = self._kind(request.urn, context), properties(request.properties)
        aws = self._account(context, before, request.timeout)
        with telling(context, f"deleting {kind.noun} ({request.id})"):
            kind.delete(aws, request.id, before)
            return empty_pb2.Empty()

    def _kind(self, urn: str, context: Any) -> Kind:
        token = urn.split("::")[2].rpartition("$")[2]
        if token not in KINDS:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"The AWS of tests has no resources of type {token}.")
        return KINDS[token]

    def _account(self, context: Any, said: Properties, patience_s: float = 0) -> Account:
        settings = self._settings.get(context.peer(), {})
        region = said.get("region") or settings.get("region") or REGION
        tags = (settings.get("defaultTags") or {}).get("tags", {})
        cancelled = self._cancelled.get(context.peer()) or threading.Event()
        return Account(self._url, region, tags, patience_s or None, cancelled)


def state_of(kind: Kind, aws: Account, id: str, before: Properties) -> Properties | None:
    """What is there, with what only the provider knows."""
    found = kind.read(aws, id, before)
    if found is None:
        return None
    region = {"region": aws.region} if "region" in kind.names() else {}
    return {**region, **{key: before[key] for key in kind.kept & before.keys()}, **found}


def inputs_of(kind: Kind, state: Properties, old: Properties) -> Properties:
    """The inputs that were given, as they would be of what is there."""
    found: Properties = {}
    for key, value in old.items():
        if key == DEFAULTS or key in kind.kept or kind.is_same(key, state.get(key), value, value):
            found[key] = value
        elif isinstance(value, dict) and isinstance(state.get(key), dict):
            found[key] = {name: each for name, each in state[key].items() if name in value or key == "tags"}
        elif key in state:
            found[key] = state[key]
    return found


def imported(kind: Kind, state: Properties) -> Properties:
    found = {key: value for key, value in state.items() if key in kind.names() - {"region"} and not is_empty(value)}
    return {**found, DEFAULTS: []}


@contextmanager
def telling(context: Any, doing: str) -> Iterator[None]:
    """Errors of the service become the answer, which the engine shows at the resource."""
    try:
        yield
    except (ClientError, Refused, BotoCoreError) as error:
        context.abort(grpc.StatusCode.UNKNOWN, f"{doing}: {in_words(error)}")


def in_words(error: Exception) -> str:
    """As the real provider shows it."""
    if not isinstance(error, ClientError):
        return str(error)
    said, about = error.response["Error"], error.response.get("ResponseMetadata", {})
    status = f"StatusCode: {about.get('HTTPStatusCode')}, RequestID: {about.get('RequestId')}"
    call = f"operation error {error.operation_name}, https response error {status}"
    return f"{call}, api error {said.get('Code')}: {said.get('Message')}"


def unfinished(context: Any, id: str, state: Properties | None, inputs: Properties, reason: str) -> NoReturn:
    """The resource goes into the state, with a note that it failed; the next update of the stack updates it."""
    both = {"properties": struct(state), "inputs": struct(inputs) if inputs else None}
    said = provider_pb2.ErrorResourceInitFailed(id=id, reasons=[reason], **both)
    detail = any_pb2.Any()
    detail.Pack(said)
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=reason, details=[detail])
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError  # as `abort_with_status` has raised


def without_defaults(said: Properties) -> Properties:
    return {key: value for key, value in said.items() if key != DEFAULTS}


def parsed(value: Any) -> Any:
    """A setting of a provider: what is not a text is JSON in one."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def properties(message: struct_pb2.Struct) -> Properties:
    return json_format.MessageToDict(message)


def struct(said: Mapping[str, Any] | None) -> struct_pb2.Struct:
    found = struct_pb2.Struct()
    found.update({key: value for key, value in (said or {}).items() if value is not None})
    return found
