"""Growing pauses between tries of what is busy or away.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

NAP_S = 0.1


def _nothing() -> bool:
    return False


class Backoff:
    """Pauses from `first_s` to `longest_s`, each `growth` times the last one.

    `spread`: the part of a pause that is left to chance, so that those who hinder each other come at different times.
    """

    def __init__(self, first_s: float, longest_s: float, *, growth: float = 2.0, spread: float = 0.0) -> None:
        self._first_s, self._longest_s, self._growth, self._spread = first_s, longest_s, growth, spread
        self.reset()

    def reset(self) -> None:
        """Begin again with `first_s`: the last try came to something."""
        self.count = 0  # pauses since then
        self._next_s = self._first_s

    def pause_s(self) -> float:
        """How long to wait this time."""
        pause_s, self._next_s = self._next_s, min(self._growth * self._next_s, self._longest_s)
        self.count += 1
        return pause_s * random.uniform(1 - self._spread, 1)

    def wait(self, heard: Callable[[], bool] = _nothing) -> bool:
        """Pause once; ends early, with True, when `heard` says so: what a signal has set, or an event's `is_set`.

        It is asked every NAP_S. An event's own `wait` would not do: a signal's handler that sets the event which its
        thread waits for can block for ever.
        """
        end = time.monotonic() + self.pause_s()
        while not heard():
            left_s = end - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(left_s, NAP_S))
        return True
