"""How long those who look at the lab's database wait: from look to look, for a run to stop, and while it is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ems.base.backoff import Backoff
from ems.base.errors import DatabaseUnavailable
from ems.base.messages import Say
from ems.databases import Database

STOP_S = 45.0  # more than an agent's lease, after which a run without one is cancelled
LOOKS_A_BEAT = 30
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

T = TypeVar("T")


def look_s(database: Database, least_s: float) -> float:
    """Seconds from one look to the next: at least `least_s`, more where looks cost something as beats do."""
    return max(least_s, database.least_beat_s / LOOKS_A_BEAT)


def stop_s(database: Database) -> float:
    """How many seconds a stop may take before it is said to be still under way."""
    return STOP_S + 2 * database.least_beat_s


class Patience:
    """For what looks again and again: goes on when the database is back. `say` is told once that it is away."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._away = False
        self._pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)

    def __call__(self, ask: Callable[[], T]) -> T:
        """The answer, however long the database is away; other errors of `ask` are raised."""
        while True:
            try:
                answer = ask()
            except DatabaseUnavailable as error:
                time.sleep(self.away(error))
            else:
                self.back()
                return answer

    def away(self, error: DatabaseUnavailable) -> float:
        """Note that it is; returns how many seconds to wait before it is asked again."""
        if not self._away:
            self._say(f"The database is away, waiting for it: {error.message}")
        self._away = True
        return self._pauses.pause_s()

    def back(self) -> None:
        """Note that the database answers again; said once, if it was away."""
        if self._away:
            self._say("The database is back.")
        self._away = False
        self._pauses.reset()


SLOWEST_S = 60.0


class Pace:
    """How often a progress line is shown: only on change, the longer it goes on the more seldom."""

    def __init__(self, fastest_s: float = 2.0) -> None:
        self._fastest_s = fastest_s
        self._began = time.monotonic()
        self._shown_at = 0.0
        self._line = ""

    def shows(self, line: str) -> bool:
        """Whether `line` is to be shown now, and then counts as shown.

        It must differ from the last one, which must have been shown long enough ago: a hundredth of the time since the
        beginning, `fastest_s` at least and 60 s at most.
        """
        now = time.monotonic()
        pause_s = min(max((now - self._began) / 100, self._fastest_s), SLOWEST_S)
        if line == self._line or now - self._shown_at < pause_s:
            return False
        self._line, self._shown_at = line, now
        return True
