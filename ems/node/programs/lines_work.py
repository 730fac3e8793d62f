"""The points of one batch, answered by a program that stays."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ems.base.messages import quoted
from ems.node.driver.points import BUDGET_S, MOST_CELLS, Returned, Task, Work
from ems.node.driver.position import Position
from ems.node.driver.ranges import Range
from ems.node.driver.rows import BadResult
from ems.node.programs.process_work import DEATHS
from ems.node.programs.program import End
from ems.node.programs.rows import without_parameters
from ems.node.programs.site import Site
from ems.node.programs.talk import Talk, answer_of
from ems.spool.batch import Value
from ems.spool.kinds import Kind

AHEAD_S = 0.25  # of work that the program has before it
LEAST_AHEAD, MOST_AHEAD = 2, 2048  # points
REFILL = 64  # answers, after which more points are sent: so the program has work while these are taken in
ALLOWED = (
    'Each answer is one line, as {"point": 7, "loss": 0.5}, {"point": 7, "rows": [{…}, {…}]} or '
    '{"point": 7, "error": "why"}; print everything else to standard error.'
)


class LinesWork(Work):
    """Points are asked ahead of the answers; the oldest one without an answer is the one at work."""

    def __init__(
        self,
        task: Task,
        site: Site,
        talk: Talk,
        position: Position,
        ranges: Sequence[Range],
        known: Mapping[str, Kind],
    ) -> None:
        super().__init__(task, position, ranges, known)
        self._site, self._talk = site, talk
        self._asked: dict[int, dict[str, Value]] = {}
        self._again: deque[tuple[int, dict[str, Value]]] = deque()
        self._failures: Counter[int] = Counter()
        self._deaths: Counter[int] = Counter()

    def run(self) -> None:
        """Until all points are answered, or no more are asked as the batch is full. NotStarted: it cannot be run."""
        self._next, self._heard_at = self._todo(), time.perf_counter()
        while self._ask() or self._asked:
            heard = self._talk.hear()
            if isinstance(heard, End):
                self._blame(self._why(heard), heard)
                continue
            self._pace(len(heard))
            self._take(heard)

    def _take(self, heard: Sequence[bytes]) -> None:
        """Each line, up to one that stops the program: what that has said besides is void."""
        for number, line in enumerate(heard, start=1):
            if not self._hear(line):
                return
            if number % REFILL == 0 and self._ask():
                self._talk.send()

    def _pace(self, answers: int) -> None:
        """More points ahead while all of them take less than AHEAD_S, by what the last answers took; or fewer."""
        if not answers:
            return
        now = time.perf_counter()
        needed_s = (now - self._heard_at) / answers * self._talk.ahead
        self._heard_at = now
        ahead = 2 * self._talk.ahead if needed_s < AHEAD_S / 2 else self._talk.ahead // 2
        if not AHEAD_S / 2 <= needed_s <= AHEAD_S:
            self._talk.ahead = max(LEAST_AHEAD, min(MOST_AHEAD, ahead))

    def _ask(self) -> bool:
        """Ask some points ahead; whether there was one to ask."""
        is_idle = not self._asked
        while len(self._asked) < self._talk.ahead and (found := self._due()):
            point, parameters = found
            self._asked[point] = parameters
            self._talk.ask(point, parameters)
        if is_idle:
            self._begin()
        return bool(self._asked)

    def _due(self) -> tuple[int, dict[str, Value]] | None:
        if self._again:
            return self._again.popleft()
        is_full = time.perf_counter() - self._began > BUDGET_S or self._gathered.cells > MOST_CELLS
        return None if is_full and self._points else next(self._next, None)

    def _begin(self) -> None:
        """The oldest point without an answer is at work."""
        if self._asked:
            self._position.set(next(iter(self._asked)))
            self._talk.begin_point()

    def _hear(self, line: bytes) -> bool:
        """Take in a line; False if it stopped the program."""
        if not self._asked:  # more than was asked
            return True
        try:
            point, rows, error = answer_of(line)
            if point not in self._asked:
                raise ValueError("is of a point that is not asked now")
        except ValueError as problem:
            self._talk.stop()
            said = f"The program printed what is not an answer: {quoted(line.decode('utf-8', 'replace'))} {problem}."
            self._blame(f"{said}\n{ALLOWED}", None)
            return False
        was_first = point == next(iter(self._asked))
        self._settle(point, self._asked.pop(point), rows, error)
        if was_first:
            self._begin()
        return True

    def _settle(self, point: int, parameters: dict[str, Value], rows: Any, error: str) -> None:
        """With rows or an error; or it is tried again."""
        if error:
            self._failures[point] += 1
            if self._failures[point] <= self._task.retries:
                self._again.append((point, parameters))
                return
        try:
            rows = rows if error else without_parameters(parameters, rows)
        except BadResult as problem:
            error = str(problem)
        self._keep(point, parameters, rows, error)

    def _collect(self, point: int) -> None:
        """The program goes on to other points, so each has a folder of its number."""
        if self._task.outputs:
            self._task.outputs.keep_own(point)

    def _why(self, end: End) -> str:
        if end.code == 0 and not end.stopped:
            return "The program ended before it had answered (exit code 0)."
        return self._site.said(end)

    def _blame(self, error: str, end: End | None) -> None:
        """The oldest point without an answer; all others are asked again, of another program."""
        (point, parameters), *others = self._asked.items()
        self._asked.clear()
        self._again.extendleft(reversed(others))
        if end and end.overdue:
            self._keep(point, parameters, None, error)
        elif end and end.was_killed:
            self._deaths[point] += 1
            if self._deaths[point] >= DEATHS:
                self._keep(point, parameters, None, f"{DEATHS} times: {error}")
            else:
                self._again.appendleft((point, parameters))
        else:
            self._settle(point, parameters, None, error)

    def returned(self) -> Returned:
        """As of a function; the platform is that of EMS's own Python, which nobody asks for."""
        return replace(super().returned(), platform="")
