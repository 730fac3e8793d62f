"""One run of a command over a grid: a sweep whose driver and workers run in EMS's own Python, and start programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.messages import some
from ems.node.agent import advice, leftovers
from ems.node.agent.attempt import Attempt
from ems.node.agent.platform import Probe
from ems.node.agent.sweep_attempt import SweepAttempt
from ems.node.agent.tidying import shown
from ems.node.driver.worker_process import SOURCE
from ems.node.job.keeper import Job
from ems.node.programs.order import ProgramOrder

BOOT = "import sys; sys.path[0] = sys.argv[1]; from ems.node.programs.driver import main; main(sys.argv[2])"
OF_POINTS = ("EMS_PARAMETERS", "EMS_RESULTS_DIR")  # variables that each point has its own of


class ProgramsAttempt(SweepAttempt):
    """`work/` of the run's folder has a folder for each worker, `left/` the files that no rows were read from."""

    def _begin(self) -> None:
        super()._begin()
        aside.remove(self._dir / "work")

    def _boot(self, unpacked: Path, order: Path) -> list[str]:
        del unpacked
        return [sys.executable, "-c", BOOT, SOURCE, str(order)]

    def _order(self, job: Mapping[str, Any], unpacked: Path) -> ProgramOrder:
        variables = self._variables(job)
        return ProgramOrder(
            function="",
            command=job["command"],
            env=dict(self._spec["env"]),
            variables={name: text for name, text in variables.items() if name not in OF_POINTS},
            parameters=job["parameters"],
            protocol=job["protocol"],
            folder=str(self._dir / "work"),
            left=str(leftovers.of_run(self._dir, self._claim.attempt)),
            results=self._spec["results"],
            python=str(Path(self._config.environment) / "bin" / "python"),
            source=str(unpacked / "ems.zip"),
            **self._ordered(job, unpacked),
        )

    def _advice(self) -> str:
        """Where no point has rows: what the first of them left, and how to have rows of it."""
        if self._declared.none or self._patiently(self._row).rows_stored:
            return ""
        attempt, folder = max(leftovers.folders(self._dir), default=(0, self._dir))
        point = min(folder.glob("point-*"), key=lambda path: int(path.name.removeprefix("point-")), default=None)
        if point is None:
            return ""
        found = leftovers.of_attempt(attempt, point)
        first = f"0 rows; not read of {point.name}: {some([*map(shown, found)])}"
        return "\n".join([first, *advice.told(point, found, self._claim.results_table)])

    def _process(self, command: list[str], folder: Path, variables: Mapping[str, str]) -> Job:  # noqa: ARG002
        return Job(command, folder, os.environ, self._dir, self._config.grace_s)

    def _ask(self, ems: Path, variables: Mapping[str, str]) -> Probe | None:
        return Attempt._ask(self, ems, variables)
