"""One run of a command over a grid: a sweep whose driver and workers run in EMS's own Python, and start programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.messages import counted, some
from ems.databases import Condition, Database
from ems.node.agent import advice, leftovers
from ems.node.agent.attempt import Attempt
from ems.node.agent.platform import Probe
from ems.node.agent.sweep_attempt import JOIN, SweepAttempt
from ems.node.agent.tidying import never_came, shown
from ems.node.driver.worker_process import SOURCE
from ems.node.job import checkpoints
from ems.node.job.keeper import Job
from ems.node.job.outputs import VARIABLE
from ems.node.job.variables import CHECKPOINT
from ems.node.programs.order import ProgramOrder
from ems.node.programs.site import OUTPUT
from ems.spool.batch import Batch

BOOT = "import sys; sys.path[0] = sys.argv[1]; from ems.node.programs.driver import main; main(sys.argv[2])"
OF_POINTS = ("EMS_PARAMETERS", "EMS_RESULTS_DIR", VARIABLE, CHECKPOINT)  # variables that each point has its own of


class ProgramsAttempt(SweepAttempt):
    """`work/` of the run's folder has a folder for each worker, `left/` the files that no rows were read from."""

    def _begin(self) -> None:
        super()._begin()
        aside.remove(self._dir / "work")
        if self._spec["job"]["protocol"] == "process":
            self._checkpoint = checkpoints.take(self._dir, self._claim.attempt, alone=True)  # each point has its own
            checkpoints.begin_points(self._checkpoint, self._count.is_done)  # an earlier run stored them, and ended
            self._courier.stored = self._forget_checkpoints

    def _forget_checkpoints(self, batch: Batch) -> None:
        """Of points that are stored; those of points that failed wait for another try."""
        failed = {mark.point for mark in batch.marks if mark.state == "failed"}
        if self._checkpoint:
            checkpoints.forget_points(self._checkpoint, (set(batch.replaces) - failed).__contains__)

    def _boot(self, unpacked: Path, order: Path) -> list[str]:
        del unpacked
        return [sys.executable, "-c", BOOT, SOURCE, str(order)]

    def _order(self, job: Mapping[str, Any], unpacked: Path) -> ProgramOrder:
        variables = self._variables(job)
        of_machine = [*(self._crew.variables if self._crew else ())]
        return ProgramOrder(
            function="",
            command=job["command"],
            env=dict(self._spec["env"]),
            variables={name: text for name, text in variables.items() if name not in {*OF_POINTS, *of_machine}},
            of_machine=of_machine,
            parameters=job["parameters"],
            protocol=job["protocol"],
            folder=str(self._dir / "work"),
            checkpoints=str(self._checkpoint or ""),
            left=str(leftovers.of_run(self._dir, self._claim.attempt)),
            results=self._spec["results"],
            python=str(Path(self._config.environment) / "bin" / "python"),
            source=str(unpacked / "ems.zip"),
            **self._ordered(job, unpacked),
        )

    def _advice(self) -> str:
        """Where no point has rows: what the first of them left, and how to have rows of it."""
        if self._declared.none:
            return ""
        if rows := self._patiently(self._row).rows_stored:
            awaited = self._patiently(self._awaited) if self._declared.columns else []
            return f"{counted(rows, 'row')}; {never_came(awaited)}" if awaited else ""
        attempt, folder = max(leftovers.folders(self._dir), default=(0, self._dir))
        point = min(folder.glob("point-*"), key=lambda path: int(path.name.removeprefix("point-")), default=None)
        if point is None:
            return ""
        found = leftovers.of_attempt(attempt, point)
        first = f"0 rows; not read of {point.name}: {some([*map(shown, found)])}"
        files = [file for file in found if file["name"] != OUTPUT]
        return "\n".join(
            [first, *advice.told(point, files, self._claim.results_table, advice.beginning(point / OUTPUT))]
        )

    def _awaited(self, database: Database) -> list[str]:
        """The columns that the stack file declares, and of which no row has a value."""
        id = self._claim.experiment_id
        first = next(iter(database.results(id, chunk_rows=1)), None)
        there = {column.name for column in first.columns} if first else set()
        return [name for name in self._declared.columns if name not in there or not _has_value(database, id, name)]

    def _joiner(self, folder: Path) -> list[str]:  # noqa: ARG002
        return [sys.executable, "-c", JOIN, SOURCE]

    def _driver(self, command: list[str], folder: Path, variables: Mapping[str, str]) -> Job:  # noqa: ARG002
        return Job(command, folder, os.environ, self._dir, self._grace_s)

    def _ask(self, ems: Path, variables: Mapping[str, str]) -> Probe | None:
        return Attempt._ask(self, ems, variables)


def _has_value(database: Database, experiment_id: str, column: str) -> bool:
    found = database.results(experiment_id, [column], [Condition(column, "!=", None)], chunk_rows=1)
    return next(iter(found), None) is not None
