"""The engine's side: protocol buffers in and out, one thread an operation. No knowledge of experiments."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

from ems.base.errors import DatabaseUnavailable, EmsError, refused
from ems.base.messages import visible
from ems.base.version import __version__
from ems.databases import Experiment
from ems.engine.provider.cluster import evanescent_clusters
from ems.engine.provider.records import INVOKES, ExperimentRow, records
from ems.engine.provider.resource import UNKNOWN, Operation, Properties, Resource
from ems.engine.provider.run import Run
from ems.engine.provider.schema import schema
from ems.lab import Lab
from ems.lab.line import progress_line
from ems.lab.patience import Pace, Patience
from ems.lab.telling import Telling

T = TypeVar("T")

FASTEST_S = 0.5  # of progress lines: the engine shows the last one in place
DIFF = provider_pb2.DiffResponse
AWAY_S = 120.0  # that a call waits for the database
LINE_LIMIT = 2000  # the engine keeps 2 KB of a line


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """Serves the resources and invokes of EMS to one update of the lab, by the engine that it is attached to.

    `telling` hears of all operations, without it the engine. `failures` are the errors that a person can fix, as
    operations raised them.
    """

    def __init__(self, find_lab: Callable[[], Lab], *, detach: bool = False, telling: Telling | None = None) -> None:
        self._find_lab, self._detach, self._telling = find_lab, detach, telling
        self.resources = {resource.token: resource for resource in every_resource()}
        self.cancelled = threading.Event()
        self.failures: list[EmsError] = []

    def attach(self, engine_address: str) -> None:
        """Whom to tell what operations say."""
        self._engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(engine_address))

    def Attach(self, request: Any, context: Any) -> Any:
        self.attach(request.address)
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=__version__)

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema=json.dumps(schema(list(self.resources.values()))))

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return DIFF(changes=DIFF.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(supportsPreview=True, acceptSecrets=False, acceptResources=False)

    def Cancel(self, request: Any, context: Any) -> Any:
        self.cancelled.set()
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:
        """An EmsError is answered as `{"error": …, "hint": …}`: the engine would bury it in a traceback."""
        try:
            operation, arguments = self._operation("", context), _properties(request.args)
            result = _patiently(operation, lambda: INVOKES[request.tok](operation, arguments))
        except EmsError as error:
            result = {"error": error.message, "hint": error.hint}
        response = provider_pb2.InvokeResponse()
        getattr(response, "return").CopyFrom(_struct(result))
        return response

    def Check(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:
        resource = self._resource(request.urn)
        old_outputs, new = _properties(request.olds), _properties(request.news)
        difference = resource.diff(_properties(request.old_inputs), old_outputs, new)
        kinds = provider_pb2.PropertyDiff
        detailed = {
            key: kinds(kind=kinds.UPDATE_REPLACE if key in difference.replacing else kinds.UPDATE, inputDiff=True)
            for key in difference.changed
        }
        return DIFF(
            changes=DIFF.DIFF_SOME if difference.changed else DIFF.DIFF_NONE,
            diffs=list(difference.changed),
            replaces=list(difference.replacing),
            detailedDiff=detailed,
            hasDetailedDiff=True,
            deleteBeforeReplace=True,
        )

    def Create(self, request: Any, context: Any) -> Any:
        resource, inputs = self._resource(request.urn), _properties(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=_struct(_foreseen(resource, inputs)))
        with self._aborting(context):
            operation = self._operation(request.urn, context)
            outputs = _patiently(operation, lambda: resource.create(operation, inputs))
            return provider_pb2.CreateResponse(id=inputs[resource.key], properties=_struct({**inputs, **outputs}))

    def Update(self, request: Any, context: Any) -> Any:
        resource, inputs = self._resource(request.urn), _properties(request.news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=_struct(_foreseen(resource, inputs)))
        with self._aborting(context):
            operation, before = self._operation(request.urn, context), _properties(request.olds)
            outputs = _patiently(operation, lambda: resource.update(operation, before, inputs))
            return provider_pb2.UpdateResponse(properties=_struct({**inputs, **outputs}))

    def Read(self, request: Any, context: Any) -> Any:
        resource = self._resource(request.urn)
        inputs = (
            _properties(request.inputs)
            or _properties(request.properties)
            or {self._resource(request.urn).key: request.id}
        )
        with self._aborting(context):
            operation = self._operation(request.urn, context)
            outputs = _patiently(operation, lambda: resource.read(operation, inputs))
            if outputs is None:
                return provider_pb2.ReadResponse()
            both = _struct({**inputs, **outputs})
            return provider_pb2.ReadResponse(id=request.id, inputs=_struct(inputs), properties=both)

    def Delete(self, request: Any, context: Any) -> Any:
        with self._aborting(context):
            inputs = _properties(request.old_inputs) or _properties(request.properties)
            operation, resource = self._operation(request.urn, context), self._resource(request.urn)
            _patiently(operation, lambda: resource.delete(operation, inputs))
            return empty_pb2.Empty()

    @contextmanager
    def _aborting(self, context: Any) -> Iterator[None]:
        """An error that a person can fix becomes the answer that the engine shows at the resource."""
        try:
            yield
        except (EmsError, OSError) as error:
            if isinstance(error, OSError) and not error.filename:
                raise
            failure = refused(error) if isinstance(error, OSError) else error
            self.failures.append(failure)
            context.abort(grpc.StatusCode.UNKNOWN, str(failure))

    def _resource(self, urn: str) -> Resource:
        return self.resources[urn.split("::")[2].rpartition("$")[2]]

    def _operation(self, urn: str, context: Any) -> Operation:
        return Operation(
            lab=self._find_lab(),
            telling=self._telling or _AtResource(self._engine, urn),
            listening=context.is_active,
            cancelled=self.cancelled,
            detach=self._detach,
        )


def every_resource() -> list[Resource]:
    """All resource types of EMS."""
    return [*records(), ExperimentRow(), Run(), *evanescent_clusters()]


def _patiently(operation: Operation, call: Callable[[], T]) -> T:
    """What may be repeated, once more where the database is away, as after a dropped connection; for some time."""
    patience, give_up_at = Patience(operation.note), time.monotonic() + AWAY_S
    while True:
        try:
            result = call()
        except DatabaseUnavailable as error:
            if time.monotonic() > give_up_at or not operation.listening():
                raise
            if operation.cancelled.wait(patience.away(error)):
                raise
        else:
            patience.back()
            return result


class _AtResource:
    """Tells the engine, which shows it beside the resource."""

    def __init__(self, engine: Any, urn: str) -> None:
        self._engine, self._urn = engine, urn
        self._pace = Pace(FASTEST_S)

    def say(self, line: str) -> None:
        self._log(line, engine_pb2.INFO, ephemeral=True)

    def note(self, line: str) -> None:
        self._log(line, engine_pb2.INFO)

    def look(self, experiment: Experiment) -> None:
        if self._pace.shows(line := progress_line(experiment)):
            self.say(line)

    def conclude(self, text: str, *, failed: bool) -> None:
        self._log(text, engine_pb2.ERROR if failed else engine_pb2.INFO)

    def _log(self, message: str, severity: Any, *, ephemeral: bool = False) -> None:
        said = {"urn": self._urn, "streamId": 0, "severity": severity, "ephemeral": ephemeral}
        with suppress(grpc.RpcError):  # a line for an engine that has ended; `listening` informs the operation
            self._engine.Log(engine_pb2.LogRequest(message=visible(message)[:LINE_LIMIT], **said))


def _foreseen(resource: Resource, inputs: Properties) -> dict[str, Any]:
    return {**inputs, **dict.fromkeys(resource.outputs, UNKNOWN)}


def _properties(struct: struct_pb2.Struct) -> dict[str, Any]:
    return json_format.MessageToDict(struct)


def _struct(properties: Properties) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update({key: value for key, value in properties.items() if value is not None})
    return struct
