"""The workers of a sweep on other instances, which come by their group: they are told where the driver listens."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ems.base import aside
from ems.base.private import make_file
from ems.node.agent.crew import Cost, Crew, Joining
from ems.node.aws.boot import MEETING, NodeConfig
from ems.node.aws.meeting import Meeting
from ems.node.aws.signed import Aws, metadata
from ems.node.driver.points import CERTIFICATE, KEY, ORDER, SCHEDULER

LOOK_S = 0.5  # between two looks whether the driver listens
# A machine that is gone says nothing: Dask's own 30 seconds are long for its points to wait. It takes no fewer than 11.
SILENCE = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s"}

log = logging.getLogger(__name__)


class AwsCrew(Crew):
    """Of the run in `run_dir`, whose group of workers is open. `grace_s`: as of Crew."""

    shares_files = False

    def __init__(self, run_dir: Path, config: NodeConfig, grace_s: float) -> None:
        self._dir, self._config, self.grace_s = run_dir, config, grace_s
        self._aws = Aws(config.region, config.bucket)
        self._joins: Meeting | None = None
        self._told, self._looked = "", 0.0

    @property
    def joining(self) -> Joining:
        here = os.cpu_count() or 1
        return Joining(metadata("meta-data/local-ipv4"), here, here * (1 + self._config.workers))

    @property
    def variables(self) -> Mapping[str, str]:
        return SILENCE

    @property
    def modules(self) -> Sequence[str]:
        return ()

    @property
    def loaded(self) -> Mapping[str, str]:
        return {}

    def begin(self, command: Sequence[str], variables: Mapping[str, str], folder: Path) -> None:
        self._scheduler.unlink(missing_ok=True)  # of an earlier driver
        paths = [self._dir / ORDER, *(self._dir / "joining" / name for name in (CERTIFICATE, KEY))]
        files = {str(path): path.read_text(encoding="utf-8") for path in paths}
        self._joins = Meeting(list(command), dict(variables), str(folder), files)

    @property
    def _scheduler(self) -> Path:
        return self._dir / "joining" / SCHEDULER

    def tend(self, left: int) -> None:  # noqa: ARG002
        if self._joins is None or time.monotonic() - self._looked < LOOK_S or not self._scheduler.exists():
            return
        self._looked = time.monotonic()
        listens = {str(self._scheduler): self._scheduler.read_text(encoding="utf-8")}
        joins = self._joins
        self._tell(Meeting(joins.command, joins.variables, joins.folder, {**joins.files, **listens}).told())

    def _tell(self, told: str) -> None:
        if told == self._told:
            return
        file = self._dir / MEETING
        make_file(file)
        file.write_text(told, encoding="utf-8")
        try:
            self._aws.put(f"{self._config.run}{MEETING}", file)
        except OSError as error:
            log.warning("The bucket does not take where workers find the driver: %s", error)
            return
        finally:
            aside.remove(file)
        self._told = told

    def cost(self, attempt: int, since: datetime) -> Cost:  # noqa: ARG002
        return Cost()

    def end(self) -> None:
        self._joins = None
        self._tell("")
