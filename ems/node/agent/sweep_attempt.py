"""One run of a sweep: what the database lacks is computed by the driver, a job like any other, point by point."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ems.base import aside
from ems.base.backoff import Backoff
from ems.base.errors import DatabaseUnavailable
from ems.base.messages import counted
from ems.databases import Database, Experiment, Outcome, State, reuse
from ems.node.agent.attempt import POLL_S, SAID_CHARACTERS, Attempt
from ems.node.agent.certificate import make_certificate
from ems.node.agent.courier import FIRST_PAUSE_S, LONGEST_PAUSE_S
from ems.node.agent.pilot import either, outside
from ems.node.agent.platform import Probe
from ems.node.agent.point_count import PointCount
from ems.node.agent.spools import Spools
from ems.node.driver.points import ORDER, Order
from ems.node.driver.ranges import count_open
from ems.node.job.keeper import Ended, Job
from ems.node.job.results_reader import ResultsReader
from ems.spool.failures import grouped
from ems.spool.kinds import Kind, settled
from ems.sweep import Sweep, exclusion

BOOT = "import sys; sys.path[0] = sys.argv[1]; from ems.node.driver.driver import main; main(sys.argv[2])"
TOO_MANY_FAILURES = 3  # the driver's exit code
OF_ALL = re.compile(r"^ems: (setup .*|Point \d+ has rows, .*)$", re.MULTILINE)  # of all points, in the driver's log
MOST_FAILURES = 10_000  # that are looked at for the commonest error
JOIN = "import sys; sys.path[0], *words = sys.argv[1:]; from ems.node.driver.joining import main; main(*words)"

T = TypeVar("T")
log = logging.getLogger(__name__)


class Halted(Exception):
    """There is a reason to stop."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.error)
        self.outcome = outcome


class SweepAttempt(Attempt):
    """Points are stored one by one, so an attempt goes on where the last one was: nothing is cleared away.

    Points that failed are computed again once the experiment was reopened, and not by the heir of a crash.
    """

    def _guarded(self, step: Callable[[], Outcome | None]) -> Outcome | None:
        def unless_halted() -> Outcome | None:
            try:
                return step()
            except Halted as halted:
                return halted.outcome

        return super()._guarded(unless_halted)

    _pilot: int | None = None  # so many points are to be computed now
    _not_due = 0  # of the points that are not done, how many nobody is to compute now
    _is_damaged = False  # whether a batch was set aside, whose points are missing

    def _open_spools(self) -> Spools:
        """Points count one by one: of each run before, those that nobody has computed since."""
        found = Spools(self._dir, self._claim.attempt, self._earlier(), continues=False)
        found.damaged = self._note_damage
        return found

    def _note_damage(self, batch: Path, error: Exception) -> None:
        """What is missing then is computed again: the database says what that is."""
        self._is_damaged = True
        with (self._dir / "job.log").open("a", encoding="utf-8") as file:
            file.write(f"ems: a batch was damaged, so its points are computed again; it is kept as {batch} ({error})\n")

    def _make_ready(self) -> Outcome | None:
        super()._make_ready()
        row = self._patiently(self._row)
        self._courier.count = PointCount(self._points(row), row.points_done, row.points_failed, self._left_out)
        self._courier.recount = self._stored_points
        return None

    def _begin(self) -> None:
        aside.remove(self._dir / "dask")
        self._outputs.begin_points()
        self._results.mkdir(exist_ok=True)

    def _work(self) -> Outcome:
        if halted := self._count_stored():
            return halted
        self._reuse()
        while True:
            ended = self._ended_before()
            if ended:
                return self._judged(ended)
            self._is_damaged = False
            outcome = super()._work()
            if outcome.exit_code != 0 or not (self._is_damaged or self._wants_more()):
                return outcome

    def _ended_before(self) -> Ended | None:
        """How the driver would end, if there is nothing left for it to do."""
        if self._max_failures is not None and self._count.given_up > self._max_failures:
            return Ended(TOO_MANY_FAILURES)
        self._pilot = self._patiently(self._row).registration.pilot
        return None if count_open(self._settled(), self._count.points) else Ended(0)

    def _settled(self) -> bytes:
        """The points that the driver leaves alone."""
        settled = self._count.settled()
        if self._pilot is None:
            return settled
        id, points = self._claim.experiment_id, self._count.points
        return either(settled, outside(id, points, self._left_out, self._pilot))

    def _wants_more(self) -> bool:
        """Whether a pilot has become a larger one meanwhile, or the whole."""
        return self._pilot is not None and self._patiently(self._row).registration.pilot != self._pilot

    def _command(self, job: Mapping[str, Any], unpacked: Path) -> list[str]:
        order = self._dir / ORDER
        order.write_text(json.dumps(asdict(self._order(job, unpacked))), encoding="utf-8")
        return self._boot(unpacked, order)

    def _boot(self, unpacked: Path, order: Path) -> list[str]:
        """Starts the driver."""
        return ["python", "-c", BOOT, str(unpacked / "ems.zip"), str(order)]

    def _ask(self, ems: Path, variables: Mapping[str, str]) -> Probe | None:  # noqa: ARG002
        """The workers say it by themselves."""
        return None

    def _order(self, job: Mapping[str, Any], unpacked: Path) -> Order:
        own: dict[str, Any] = {key: job.get(key) for key in ("setup", "setup_timeout_s")}
        return Order(function=job["function"], **own, **self._ordered(job, unpacked))

    def _workers(self) -> dict[str, Any]:
        if self._crew is None:
            return {"workers": self._spec["cluster"].get("workers") or self._config.workers or os.cpu_count() or 1}
        joining, folder = self._crew.joining, str(self._dir / "joining")
        return {"workers": joining.workers, "workers_here": joining.here, "host": joining.host, "joining": folder}

    def _process(self, command: list[str], folder: Path, variables: Mapping[str, str]) -> Job:
        if self._crew:
            make_certificate(self._dir / "joining")
            self._crew.begin([*self._joiner(folder), str(self._dir / "joining")], variables, folder)
        return self._driver(command, folder, variables)

    def _driver(self, command: list[str], folder: Path, variables: Mapping[str, str]) -> Job:
        return super()._process(command, folder, variables)

    def _joiner(self, folder: Path) -> list[str]:
        """Starts a worker on another machine."""
        python = Path(self._config.environment) / "bin/python"
        return [str(python), "-c", JOIN, str(folder.with_name("ems.zip"))]

    def _ordered(self, job: Mapping[str, Any], unpacked: Path) -> dict[str, Any]:
        """Of an order, what does not depend on what computes the points."""
        return {
            "grids": job["sweep"],
            "code": str(unpacked / "code"),
            "spool": str(self._spools.own.folder),
            "outputs": str(self._outputs.folder),
            "done": str(self._write_done()),
            "progress": str(self._dir / "progress.json"),
            **self._workers(),
            "threads": job["threads"],
            "retries": job["retries"],
            "max_failures": None if self._max_failures is None else self._max_failures - self._count.given_up,
            "memory_mb": job["memory_mb"],
            "point_timeout_s": job["point_timeout_s"],
            "types": self._patiently(self._stored_kinds),
            "keeps_rows": not self._declared.none,
            "shuffle": self._claim.experiment_id if self._pilot or job.get("order") == "random" else "",
        }

    def _count_stored(self) -> Outcome | None:
        """Count exactly, once the database has what an earlier agent had spooled; an outcome if that is halted."""
        halted = self._wait_until_stored()
        if halted is None:
            self._courier.count = self._patiently(self._stored_points)
            self._courier.recount = None
        return halted

    def _reuse(self) -> None:
        """Copy the points that earlier experiments have computed."""
        if copied := self._patiently(self._copy):
            log.info("Reused %d points of earlier experiments", copied)
            self._courier.count = self._patiently(self._stored_points)

    def _copy(self, database: Database) -> int:
        done = bytearray(self._count.bits)
        return reuse.copy(database, self._claim, self._row(database).registration, done, self._go_on)

    def _go_on(self) -> None:
        """Halted if there is a reason to stop."""
        if outcome := self._halted():
            raise Halted(outcome)

    def _write_done(self) -> Path:
        """Of the points that are not to be computed, which are not all done: some are left out, or wait for a pilot."""
        file, settled = self._dir / "done.bits", self._settled()
        file.write_bytes(settled)
        self._not_due = self._undone - count_open(settled, self._count.points)
        return file

    @property
    def _undone(self) -> int:
        """How many points are neither done nor given up."""
        return self._count.points - self._count.done - self._count.given_up

    def _row(self, database: Database) -> Experiment:
        row = database.experiment(self._claim.experiment_id)
        assert row  # it was claimed
        return row

    def _stored_points(self, database: Database) -> PointCount:
        count = PointCount(self._points(self._row(database)), left_out=self._left_out)
        for state, points in database.points(self._claim.experiment_id):
            count.know(points, state)
        return count

    def _stored_kinds(self, database: Database) -> dict[str, Kind]:
        """What each column is by the rows that are stored: of integers of the results, all are looked at."""
        id, parameters = self._claim.experiment_id, self._names
        first = next(iter(database.results(id, chunk_rows=1)), None)
        kinds: dict[str, Kind] = {column.name: column.type for column in first.columns} if first else {}
        integers = [name for name, kind in kinds.items() if kind == "int64" and name not in parameters]
        for batch in database.results(id, integers) if integers else ():
            for column in batch.columns:
                kinds[column.name] = settled(column.values, kinds[column.name])[0] or "int64"
        return kinds

    @property
    def _names(self) -> Sequence[str]:
        """Of all parameters."""
        return Sweep.of(self._spec["job"]["sweep"]).names

    pause_s = POLL_S

    def _attend(self, job: Job) -> None:
        """What the driver waits for while it runs: nothing."""

    def _follow(self, job: Job, reader: ResultsReader) -> Outcome:  # noqa: ARG002
        try:
            return self._followed(job)
        finally:
            if self._crew:
                self._crew.end()

    def _followed(self, job: Job) -> Outcome:
        while True:
            ended = job.wait(self.pause_s)
            if ended:
                return self._ended_together(ended) or self._wait_until_stored() or self._judged(ended)
            halted = self._halted()
            if halted:
                job.stop()  # the driver spools what comes back within seconds
                return halted
            self._courier.wake()  # the driver may have spooled a batch
            self._attend(job)
            if self._crew:
                self._crew.tend(self._undone - self._not_due)

    def _wait_until_stored(self) -> Outcome | None:
        """Until the courier has emptied the spool; an outcome if there is a reason to stop before."""
        while self._spools.waiting():
            self._courier.hurry()
            halted = self._halted()
            if halted:
                return halted
            time.sleep(POLL_S)
        return None

    def _patiently(self, ask: Callable[[Database], T]) -> T:
        """The database's answer, however long it is away."""
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        with closing(self._connect()) as database:
            while True:
                try:
                    return ask(database)
                except DatabaseUnavailable as error:
                    log.warning("The database is away, waiting for it: %s", error)
                pauses.wait(lambda: self._halted() is not None)
                self._go_on()

    def _judged(self, ended: Ended) -> Outcome:
        failed = self._count.failed
        if ended.code not in {0, TOO_MANY_FAILURES}:
            return Outcome(State.FAILED, 0, 0, ended.code, self._said(ended, "the sweep's driver: "), self._log.tail())
        if ended.code == 0 and self._pilot is not None and count_open(self._count.settled(), self._count.points):
            return Outcome(State.PILOTED, 0, 0, exit_code=0)
        if ended.code == 0 and failed <= (self._max_failures or 0):
            return Outcome(State.SUCCEEDED, 0, 0, exit_code=0, log_tail=self._advice())
        stopped = "" if ended.code == 0 else ". It was stopped, as more than max_failures failed."
        return Outcome(State.FAILED, 0, 0, ended.code, f"{self._patiently(self._why)}{stopped}")

    def _advice(self) -> str:
        """What people should read of a run that went well."""
        return ""

    def _said(self, ended: Ended, of: str = "") -> str:
        """A set-up that failed, or rows that nobody wants, are the run's error, in one line."""
        found = OF_ALL.findall(self._log.end()) if ended.code == 1 else []
        return found[-1][:SAID_CHARACTERS] if found else super()._said(ended, of)

    def _why(self, database: Database) -> str:
        """How many points failed, and the commonest error; of very many points, that of the last ones."""
        failed = self._count.failed
        looked_at = min(failed, MOST_FAILURES)
        groups = grouped(database.failures(self._claim.experiment_id, looked_at))
        said = f"{counted(failed, 'point')} failed"
        if not groups:
            return said
        error = groups[0].error[:SAID_CHARACTERS]
        if len(groups) == 1 and looked_at == failed:
            return f"{said}: {error}"
        of = "them" if looked_at == failed else f"the last {looked_at:,}"
        return f"{said}, {groups[0].count:,} of {of} with {error}"

    def _points(self, row: Experiment) -> int:
        """How many points the grids have, those that are left out included."""
        return row.registration.points_total + exclusion.count(self._left_out)

    @cached_property
    def _left_out(self) -> bytes:
        return exclusion.of_job(self._spec["job"])

    @property
    def _count(self) -> PointCount:
        assert self._courier.count  # since `_clear`
        return self._courier.count

    @property
    def _max_failures(self) -> int | None:
        most: int | None = self._spec["job"]["max_failures"]
        return most
