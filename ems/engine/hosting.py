"""The program and the provider of one update within this process: no interpreter is started for either.

The engine asks a language host for the program, and a plugin for the resources. Plain `pulumi up` starts both, as
Pulumi.yaml says. `--client` names one that is there already, as Pulumi's own Automation API does it, and
PULUMI_DEBUG_PROVIDERS the other. What is named there already, as somebody's own provider of a cloud, stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import pulumi
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2_grpc, provider_pb2_grpc

from ems.base.errors import EmsError
from ems.base.threads import Threads
from ems.engine.provider.server import Provider
from ems.lab import Lab
from ems.lab.telling import Telling


@dataclass(frozen=True)
class Hosted:
    """What the engine is given to find program and provider. `failures`: the errors of both that a person can fix."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    failures: list[EmsError]


@contextmanager
def hosted(
    lab: Lab, declare: Callable[[], None], *, detach: bool = False, telling: Telling | None = None
) -> Iterator[Hosted]:
    """For the update that is made within the block: `declare` is its program, which may raise an EmsError.

    `telling` hears of its operations; without it the engine shows them.
    """
    provider = Provider(lambda: lab, detach=detach, telling=telling)

    def program() -> None:
        try:
            declare()
        except EmsError as error:
            provider.failures.append(error)
            raise pulumi.RunError(str(error)) from None

    server = grpc.server(Threads())  # type: ignore[arg-type]  # of an executor, `submit` is all that it uses
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
    address = f"127.0.0.1:{(port := server.add_insecure_port('127.0.0.1:0'))}"
    providers = ",".join(filter(None, (f"ems:{port}", os.environ.get("PULUMI_DEBUG_PROVIDERS"))))
    server.start()
    try:
        yield Hosted(("--client", address), {"PULUMI_DEBUG_PROVIDERS": providers}, provider.failures)
    finally:
        provider.cancelled.set()
        server.stop(grace=None)
