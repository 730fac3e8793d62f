"""`python -m ems.engine.provider ENGINE_ADDRESS`: serve until the engine is gone."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc
from pulumi.runtime.proto import provider_pb2_grpc

from ems import lab
from ems.engine.provider.server import Provider


def main() -> None:
    """Print the port that the engine is to connect to, and serve until the process that started this one is gone."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, _leave)  # the engine's good-bye; a Ctrl-C reaches us as its Cancel
    server = grpc.server(ThreadPoolExecutor(32))
    provider = Provider(lab.find, detach=bool(os.environ.get("EMS_DETACH")))
    provider.attach(sys.argv[1])
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    while os.getppid() == parent:
        time.sleep(0.5)
    _leave()


def _leave(*_signal: object) -> NoReturn:
    """At once: operations still under way are only watching, as agents are processes of their own."""
    os._exit(0)


if __name__ == "__main__":
    main()
