"""One run of a sweep whose points results decide: round after round, each recorded before it is computed.

A run that takes over has the recorded rounds computed first, and proposes none of them again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.messages import counted, last_line
from ems.databases import Database, Outcome, Round, State, reuse, rounds
from ems.node.agent.exported import Exported
from ems.node.agent.programs_attempt import ProgramsAttempt
from ems.node.agent.sweep_attempt import Halted, SweepAttempt
from ems.node.driver.ranges import open_ranges
from ems.node.driver.turns import POLL_S, Said, Turns
from ems.node.job.keeper import Ended, Job
from ems.stack import proposed
from ems.sweep import Sweep

log = logging.getLogger(__name__)

WHY_CHARACTERS = 500  # of why a round was not proposed, in an error: what is allowed is said there, too


class RoundsAttempt(SweepAttempt):
    """The driver stays while rounds come and go; between two of them it waits for what this attempt tells it."""

    pause_s = 2 * POLL_S

    def _make_ready(self) -> Outcome | None:
        self._recorded = self._patiently(lambda database: database.rounds(self._claim.experiment_id))
        self._first = rounds.first_grids(self._before.registration)
        self._sweep = Sweep.of(self._first)
        for each in self._recorded:
            self._sweep = self._sweep.extended(each.grids)
        return super()._make_ready()

    def _work(self) -> Outcome:
        self._exported = Exported(self._folder / "rows", self._claim.experiment_id)
        self._sources = self._patiently(lambda database: database.reusable(self._before.registration))
        return super()._work()

    @property
    def _folder(self) -> Path:
        return self._dir / "rounds"

    # What there is, and what is allowed

    def _rounds(self) -> list[tuple[int, range]]:
        """The number and the points of each round that there is."""
        first = [(1, range(len(Sweep.of(self._first))))] if self._first else []
        return first + [
            (each.number, range(each.first_point, each.first_point + each.points))
            for each in self._recorded
            if each.points
        ]

    def _end(self) -> str:
        """Why no further round comes, as far as that is known before it is proposed; "" if one may come."""
        count, most = len(self._rounds()), self._limits.get("max_rounds")
        if self._recorded and not self._recorded[-1].points:
            return f"{self._spec['job']['propose']} proposed no more"
        if self._pilot is not None:
            return "a pilot is of the rounds that there are: ems up without --pilot goes on"
        return f"limits.max_rounds is {most}: raise it to go on" if most is not None and count >= most else ""

    @property
    def _limits(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._spec["limits"]
        return found

    # The driver

    def _ended_before(self) -> Ended | None:
        ended = super()._ended_before()
        return None if ended and ended.code == 0 and not self._end() else ended

    def _begin(self) -> None:
        super()._begin()
        aside.remove(self._folder / "turns")
        (self._folder / "turns").mkdir(parents=True)
        self._turns = Turns(self._folder / "turns")

    def _ordered(self, job: Mapping[str, Any], unpacked: Path) -> dict[str, Any]:
        order = super()._ordered({**job, "sweep": self._grids()}, unpacked)
        return {**order, "propose": job["propose"], "rounds": str(self._turns.folder)}

    def _grids(self) -> list[Any]:
        return [*self._first, *(grid for each in self._recorded for grid in each.grids)]

    @property
    def _names(self) -> Sequence[str]:
        return self._sweep.names

    def _attend(self, job: Job) -> None:
        """Have the next round proposed, if the driver has computed all that there is."""
        points = len(self._sweep)
        if self._turns.heard("computed", points) is None:
            return
        if halted := self._wait_until_stored():
            raise Halted(halted)
        is_complete = not self._is_damaged and self._ended_before() is None
        grids = self._next_grids(job) if is_complete else ()
        if grids is None:  # the driver ended
            return
        self._tell(points, grids)

    def _tell(self, points: int, grids: Sequence[Any]) -> None:
        """The driver's next points, but for those that were copied."""
        left = [part for part in open_ranges(self._count.settled(), self._count.points) if part[1] > points]
        self._turns.tell("points", points, {"grids": list(grids), "open": left})
        self._turns.forget(points)

    # A further round

    def _next_grids(self, job: Job) -> Sequence[Any] | None:
        """The grids of the next round, recorded; none if none comes; None if the driver ended."""
        points, number = len(self._sweep), len(self._rounds()) + 1
        self._patiently(self._export)
        self._turns.tell("question", points, {**self._exported.question, "round": number})
        heard = self._turns.wait(("answer",), points, lambda: self._goes_on(job))
        if heard is None:
            return None
        grids, sweep = self._checked(number, heard[1])
        most = self._limits.get("max_points")
        if most is not None and len(sweep) > most:
            self._passed = (
                f"round {number} would make it {len(sweep):,}, and limits.max_points is {most:,}: raise it to go on"
            )
            return ()
        wanted = Round(number, points, len(sweep) - points, tuple(grids), self._exported.digest)
        recorded = self._patiently(lambda database: database.propose(self._claim, wanted))
        self._grow(recorded)
        return recorded.grids

    def _goes_on(self, job: Job) -> bool:
        self._go_on()
        return job.wait(0) is None

    def _export(self, database: Database) -> None:
        """The rows of all rounds that are not exported yet."""
        for number, points in self._rounds():
            if points.stop > self._exported.points:
                self._exported.add(database, number, points, self._count.failed_since(points.start))

    def _checked(self, number: int, answer: Said) -> tuple[Sequence[Any], Sweep]:
        """What was proposed, and the sweep with it. Halted if it cannot be one: nothing of it was recorded."""
        if "error" in answer:
            told = answer["error"]
            raised = told.startswith("Traceback")
            raise Halted(self._not_proposed(number, last_line(told) if raised else told.partition("\n")[0], told))
        try:
            grids = proposed.grids_of(answer)
            return grids, proposed.extended(self._sweep, grids)
        except proposed.Unusable as error:
            raise Halted(self._not_proposed(number, str(error))) from error

    def _not_proposed(self, number: int, why: str, told: str = "") -> Outcome:
        error = f"Round {number} was not proposed by {self._spec['job']['propose']}: {why[:WHY_CHARACTERS]}"
        with (self._dir / "job.log").open("a", encoding="utf-8") as file:
            file.write(f"ems: {error}\n{told}\n")
        return Outcome(State.FAILED, 0, 0, 1, error, self._log.tail())

    def _grow(self, recorded: Round) -> None:
        self._recorded.append(recorded)
        before, self._sweep = self._sweep, self._sweep.extended(recorded.grids)
        self._count.grow(len(self._sweep))
        log.info("Round %d: %d points", recorded.number, recorded.points)
        if self._sources and recorded.points:
            more = self._sweep.since(len(before.grids))
            if self._patiently(partial(self._copy, sweep=more)):
                self._courier.count = self._patiently(self._stored_points)

    def _copy(self, database: Database, sweep: Sweep | None = None) -> int:
        done = bytearray(self._count.bits)
        return reuse.copy_from(database, self._claim, self._sources, sweep or self._sweep, done, self._go_on)

    # The end

    def _release(self, *, succeeded: bool = False) -> bool:
        is_released = super()._release(succeeded=succeeded)
        if is_released:
            aside.remove(self._folder)
        return is_released

    _passed = ""  # why no further round comes, if only what was proposed has shown it

    def _judged(self, ended: Ended) -> Outcome:
        outcome = super()._judged(ended)
        may_go_on = not self._recorded or self._recorded[-1].points
        if outcome.state is State.SUCCEEDED and self._pilot is not None and may_go_on:
            return replace(outcome, state=State.PILOTED)
        if outcome.state is not State.SUCCEEDED:
            return outcome
        counts = f"{counted(len(self._rounds()), 'round')}, {counted(len(self._sweep), 'point')}"
        return replace(outcome, log_tail=f"{counts}; {self._end() or self._passed}")


class ProgramRoundsAttempt(RoundsAttempt, ProgramsAttempt):
    """The same of a command's sweep: a function in the experiment's environment proposes the points of its programs."""
