"""The points of one batch, each by a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from subprocess import DEVNULL
from typing import Any

from ems.node.driver.points import Returned, Task, Work
from ems.node.driver.position import Position
from ems.node.driver.ranges import Range
from ems.node.driver.rows import BadResult
from ems.node.job.point_results import PointRows, rows_of
from ems.node.job.results_file import ResultsError
from ems.node.programs.program import NotStarted, Program
from ems.node.programs.rows import without_parameters
from ems.node.programs.site import Site
from ems.spool.batch import Batch, Value
from ems.spool.kinds import Kind

DEATHS = 3  # by a signal, or for memory, until a point is blamed: once may be bad luck
Rows = list[dict[str, Value]]


class ProcessWork(Work):
    """As of a function, but the rows of a point are what its program has written."""

    def __init__(
        self, task: Task, site: Site, position: Position, ranges: Sequence[Range], known: Mapping[str, Kind]
    ) -> None:
        super().__init__(task, position, ranges, known)
        self._site = site

    def _call(self, point: int, parameters: dict[str, Value]) -> tuple[Any, str]:
        """The point's rows, or else why there are none. EmsError if the program cannot be run at all."""
        failures = deaths = 0
        while True:
            self._position.set(point)
            rows, error, was_killed = self._run(point, parameters)
            if not error or was_killed is None:
                return rows, error
            failures, deaths = failures + (not was_killed), deaths + was_killed
            if failures > self._task.retries:
                return None, error
            if deaths >= DEATHS:
                return None, f"{DEATHS} times: {error}"

    def _run(self, point: int, parameters: dict[str, Value]) -> tuple[Rows, str, bool | None]:
        """Rows, the error, and whether the program was killed; None where another try is of no use."""
        site, read, found = self._site, PointRows((), ()), []
        error, was_killed = "", None
        try:
            self._begin_again()
            reader = site.reader()
            with site.stdout.open("wb") as stdout, site.stderr.open("wb") as stderr:
                end = self._program(point, parameters, stdout, stderr).wait()
            if end.code or end.stopped:
                error, was_killed = site.said(end), None if end.overdue else end.was_killed
            else:
                read = rows_of(reader)
                found = without_parameters(parameters, list(chain.from_iterable(map(_rows, read.batches))))
        except (ResultsError, BadResult) as problem:
            error = str(problem)
        except NotStarted as problem:
            if site.is_one_program:
                raise
            error = str(problem)
        site.clear(f"point-{point}", read.read, has_rows=bool(found))
        return found, error, was_killed

    def _program(self, point: int, parameters: dict[str, Value], stdout: Any, stderr: Any) -> Program:
        words, variables = self._site.words(parameters), self._site.variables(parameters, point)
        return Program(
            words, self._site.work, variables, self._site.limits, stdin=DEVNULL, stdout=stdout, stderr=stderr
        )

    def returned(self) -> Returned:
        """As of a function; the platform is that of EMS's own Python, which nobody asks for."""
        return replace(super().returned(), platform="")


def _rows(batch: Batch) -> Iterator[dict[str, Value]]:
    names = [column.name for column in batch.columns]
    if not names:
        yield from ({} for _ in range(len(batch)))
        return
    for values in zip(*(column.values for column in batch.columns), strict=True):
        yield dict(zip(names, values, strict=True))
