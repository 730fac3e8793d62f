"""What has an instance's workers join a sweep: `python -m ems.node.aws.member RUN_DIR ENVIRONMENT`, from BOOT.

The head's meeting says which sweep, and how. What points leave in EMS_OUTPUT_DIR is stored from here; the workers are
told what was stored, and hand that on with the rows of these points.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from ems import stores
from ems.base import aside
from ems.base.private import make_file, make_folder
from ems.databases import Claim, Output
from ems.node import __main__ as node
from ems.node.agent import leftovers, packages
from ems.node.agent.config import AgentConfig
from ems.node.agent.endings import GOES_ON
from ems.node.agent.inputs import lay_out_inputs
from ems.node.agent.porter import Porter
from ems.node.agent.taken import Found, Taken
from ems.node.agent.unpack import unpack
from ems.node.aws.boot import MEETING, NodeConfig
from ems.node.aws.meeting import Meeting
from ems.node.aws.signed import Aws, metadata
from ems.node.driver.points import ORDER
from ems.node.job import carried
from ems.node.job.outputs import FOLDER, OPEN

LOOK_S = 1.0  # between two looks at the meeting
LEAVE_S = 30.0  # in which workers finish what they compute
SOON_S = 10.0  # a worker that ended before could not begin
MOST_FAILURES = 3  # in a row, of each worker

log = logging.getLogger(__name__)


class Member:
    """Of the run in `run_dir`; `environment`: the folder of the experiment's."""

    def __init__(self, run_dir: Path, environment: Path) -> None:
        self._dir, self._environment, self._config = run_dir, environment, AgentConfig.read(run_dir)
        told = NodeConfig.read(run_dir.parent / "config.json")
        self._aws, self._key = Aws(told.region, told.bucket), f"{told.run}{MEETING}"
        self._name = metadata("meta-data/instance-id")
        self._told = ""
        self._joins: Meeting | None = None
        self._workers: dict[int, tuple[subprocess.Popen[bytes], float]] = {}  # and when each was started, monotonic
        self._started = self._failures = 0
        self._stopping = False

    def run(self) -> int:
        """1 if workers cannot begin, again and again; GOES_ON if it was told to stop."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        porter = self._porter()
        porter.start()
        while not self._stopping:
            self._meet()
            self._replace()
            if self._failures > MOST_FAILURES * len(self._workers):
                return 1
            time.sleep(LOOK_S)
        self._end()
        porter.stop()
        return GOES_ON

    def _stop(self) -> None:
        self._stopping = True

    def _porter(self) -> Porter:
        folder, notes = self._dir / FOLDER, carried.Notes(self._dir / carried.FOLDER)
        make_folder(folder)
        nobody = Claim(self._config.experiment_id, 0, "", datetime.now(UTC))  # the head records what is noted
        return Porter(
            Taken(folder),
            nobody,
            lambda: stores.connect(self._config.store, Path(self._config.root)),
            lambda: Noting(notes),
            self._leave_behind,
            lambda line: log.info("%s", line),
        )

    def _leave_behind(self, found: Found, problem: str) -> None:
        """What no store will have."""
        where = leftovers.of_run(self._dir, 0) / found.folder.name / found.path.relative_to(found.folder)
        where.parent.mkdir(parents=True, exist_ok=True)
        found.path.replace(where)
        log.warning("not stored: %r of point %d, as %s", found.name, found.point, problem)

    def _meet(self) -> None:
        """Take part in the sweep that there is now, and in no other."""
        file = self._dir / MEETING
        make_file(file)
        try:
            self._aws.get(self._key, file)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("The bucket does not say where the driver is: %s", error)
            return
        told = file.read_text(encoding="utf-8")
        if told != self._told:
            self._end()
            self._told, self._joins = told, Meeting.of(told)
            if self._joins:
                self._make_ready(self._joins)

    def _make_ready(self, joins: Meeting) -> None:
        """Have here what the head has."""
        unpacked = self._dir / "code"
        unpack(Path(self._config.bundle), unpacked)
        if self._config.inputs:
            lay_out_inputs(self._config.inputs, self._dir / "inputs")
        packages.added(joins.variables, unpacked, self._environment)
        aside.remove(self._dir / FOLDER / OPEN)
        for name, text in joins.files.items():
            path = Path(name)
            make_folder(path.parent)
            make_file(path)
            path.write_text(text, encoding="utf-8")
        order = self._dir / ORDER
        said = {**json.loads(order.read_text(encoding="utf-8")), "carried": str(self._dir / carried.FOLDER)}
        order.write_text(json.dumps(said), encoding="utf-8")

    def _replace(self) -> None:
        """Have a worker for each CPU."""
        for number in range(os.cpu_count() or 1) if self._joins else ():
            if number in self._workers and self._is_at_work(*self._workers[number]):
                continue
            self._workers[number] = self._begun(number), time.monotonic()

    def _is_at_work(self, process: subprocess.Popen[bytes], since: float) -> bool:
        code = process.poll()
        if code is None:
            return True
        has_failed = code != 0 and time.monotonic() - since < SOON_S
        self._failures = self._failures + 1 if has_failed else 0
        return False

    def _begun(self, number: int) -> subprocess.Popen[bytes]:
        assert self._joins
        self._started += 1
        words = [*self._joins.command, f"{self._name}-{number}-{os.getpid()}.{self._started}", "0"]
        variables = dict(self._joins.variables)
        return subprocess.Popen(words, cwd=self._joins.folder, env=variables, stdin=subprocess.DEVNULL)

    def _end(self) -> None:
        """They finish what they compute, and hand it over."""
        for process, _ in self._workers.values():
            with suppress(ProcessLookupError):
                process.terminate()
        give_up_at = time.monotonic() + LEAVE_S
        for process, _ in self._workers.values():
            try:
                process.wait(max(0.0, give_up_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._workers, self._failures, self._joins = {}, 0, None


class Noting:
    """In place of the database, which the head alone writes."""

    def __init__(self, notes: carried.Notes) -> None:
        self._notes = notes

    def put_outputs(self, claim: Claim, outputs: Sequence[Output]) -> None:  # noqa: ARG002
        """For the workers."""
        for output in outputs:
            self._notes.add(output.point, output.name, asdict(output))

    def close(self) -> None:
        """There is nothing to close."""


def member(run_dir: Path, environment: Path) -> Member:
    """That of a prepared run folder."""
    return Member(run_dir, environment)


if __name__ == "__main__":
    sys.exit(node.main(sys.argv[1:], member))
