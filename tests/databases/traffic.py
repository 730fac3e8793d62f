"""How much goes to and fro between EMS and a database: exchanges (a question and its answer) and bytes of answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass
class Traffic:
    """What was counted since it was made, or last set to nothing."""

    exchanges: int = 0
    received: int = 0  # bytes

    def clear(self) -> None:
        self.exchanges = self.received = 0


@contextmanager
def metered(port: int, traffic: Traffic) -> Iterator[int]:
    """A port that leads to the server at `port`, and counts what passes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, traffic), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, traffic: Traffic) -> None:
    with suppress(OSError):  # when it is closed
        while True:
            client = listener.accept()[0]
            _Line(client, socket.create_connection(("127.0.0.1", port)), traffic)


class _Line:
    """One connection. An answer after a question is an exchange, in however many pieces each of them comes."""

    def __init__(self, client: socket.socket, server: socket.socket, traffic: Traffic) -> None:
        self._traffic, self._asked = traffic, False
        for source, target, count in ((client, server, self._ask), (server, client, self._answer)):
            threading.Thread(target=self._pass_on, args=(source, target, count), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, count) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                count(data)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _ask(self, data: bytes) -> None:
        self._asked = True

    def _answer(self, data: bytes) -> None:
        self._traffic.exchanges += self._asked
        self._traffic.received += len(data)
        self._asked = False
