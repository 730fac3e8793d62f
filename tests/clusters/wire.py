"""A cable between two machines of a test, which may be slow or cut, as not every kernel has netem."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time
from collections import deque
from contextlib import suppress
from threading import Thread

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
FRAME = 65_536
AT_ONCE = 64  # frames from one end, before those that are due are handed on
LOOK_S = 0.2


class Wire(Thread):
    """Two network interfaces, which this process joins by handing on each frame. They go when it ends."""

    def __init__(self, here: str, there: str, delay_s: float) -> None:
        """Their names. `delay_s`: of each frame."""
        super().__init__(name="wire", daemon=True)
        self.delay_s, self.is_cut = delay_s, False
        self._ends = [_tap(here), _tap(there)]
        self._under_way: deque[tuple[float, int, bytes]] = deque()
        self._ended = False
        self.start()

    def end(self) -> None:
        self._ended = True
        self.join()
        for end in self._ends:
            os.close(end)

    def run(self) -> None:
        while not self._ended:
            for end in select.select(self._ends, [], [], self._next_s())[0]:
                self._take(end, self._ends[self._ends[0] == end])
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                _, other, frame = self._under_way.popleft()
                with suppress(OSError):  # nobody is up at that end
                    os.write(other, frame)

    def _next_s(self) -> float:
        due = self._under_way[0][0] - time.monotonic() if self._under_way else LOOK_S
        return min(max(due, 0), LOOK_S)

    def _take(self, end: int, other: int) -> None:
        with suppress(OSError):
            for _ in range(AT_ONCE):
                frame = os.read(end, FRAME)
                if not self.is_cut:
                    self._under_way.append((time.monotonic() + self.delay_s, other, frame))


def _tap(name: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return file
