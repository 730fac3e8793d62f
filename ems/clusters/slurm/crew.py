"""The workers of a sweep on a Slurm machine: arrays of small jobs, replaced as they go.

What is queued, and what was preempted and is queued again, counts as coming. Nothing is submitted that the queue has
not been asked about since the last submission, so that one that did not answer is not repeated.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.errors import EmsError
from ems.base.process import CommandFailed
from ems.clusters import shipping
from ems.clusters.slurm import heads, late, modules, queue, script
from ems.clusters.slurm.heads import WORKERS, crew_name, job_name
from ems.clusters.slurm.queue import ENDED, Queue, QueuedJob
from ems.clusters.slurm.wanted import Wanted
from ems.node.agent.crew import Cost, Crew, Joining
from ems.node.driver.worker_process import SOURCE

PAUSE_S = 30.0  # between two looks at the queue
LISTED_S = 5.0  # after which jobs that were submitted stand in it
GIVEN = ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")  # by Slurm, to the head's job
MOST_IN_VAIN = 5  # submissions in a row without a point computed: then this machine goes on alone
MOST_AT_ONCE = 1000  # jobs of an array: Slurm's own default
GATHER_S, GATHER_BYTES = 1.0, 2**18  # as little as a log takes of what workers print

log = logging.getLogger(__name__)


class SlurmCrew(Crew):
    """Of the run in `run_dir`."""

    grace_s, shares_files = script.GRACE_S, True

    def __init__(
        self, run_dir: Path, experiment_id: str, wanted: Wanted, environment: Path, jobs: Queue | None = None
    ) -> None:
        """`environment`: the folder of the experiment's, on this node and on those of workers."""
        self._places = [environment, Path(sys.prefix), Path(SOURCE)]
        self._dir, self._wanted, self._jobs = run_dir, wanted, jobs or Queue()
        self.name, self._head = crew_name(experiment_id), job_name(experiment_id)
        self._script, self._log = run_dir / "workers.sh", run_dir / "workers.log"
        self._looked = -PAUSE_S
        self._submitted = time.time() - LISTED_S
        self._in_vain, self._left, self._most = 0, 0, MOST_AT_ONCE
        self._running, self._core_s, self._metered_at = 0, 0.0, time.monotonic()  # jobs of workers; as of the last look
        self._taken: dict[str, int] = {}  # how often each job was taken away
        self._told: Mapping[str, Any] = {}
        self._file = run_dir / WORKERS
        self._gathered, self._gathered_at = 0, 0.0  # bytes of what workers print that the job's log has; when

    @property
    def joining(self) -> Joining:
        here = min(self._wanted.processes_of_head, self._wanted.workers)
        return Joining(socket.gethostname(), here, self._wanted.workers)

    @property
    def variables(self) -> Mapping[str, str]:
        return {name: os.environ[name] for name in GIVEN if name in os.environ}

    @property
    def modules(self) -> Sequence[str]:
        return [name for name in os.environ.get("LOADEDMODULES", "").split(":") if name and self._wanted.modules]

    @cached_property
    def loaded(self) -> Mapping[str, str]:
        return modules.changes(self._wanted.modules)

    def begin(self, command: Sequence[str], variables: Mapping[str, str], folder: Path) -> None:
        common = {name: text for name, text in variables.items() if name not in GIVEN}
        needed = {path for path in self._places if any(str(path) in word for word in command)}
        boot = shipping.boot(self._dir, *map(str, sorted({self._places[0], *needed})))
        text = script.workers(command, common, folder, self._wanted, boot)
        aside.write(self._script, text)
        self._gathered = self._log.stat().st_size if self._log.exists() else 0

    def tend(self, left: int) -> None:
        self._gather()
        if time.monotonic() - self._looked < PAUSE_S:
            return
        self._looked = time.monotonic()
        try:
            since_s = time.time() - self._submitted - LISTED_S
            asked_at, jobs = self._jobs.jobs(min(max(since_s, 0.0), PAUSE_S / 2))
        except CommandFailed as error:
            log.warning("Slurm does not answer: %s", error.stderr.strip() or error.message)
            return
        if asked_at < self._submitted + LISTED_S:
            return
        coming = [job for job in jobs if job.name == self.name and job.state not in ENDED]
        self._tell(coming)
        self._submit(self._missing(left, len(coming)), left)

    def _gather(self, pause_s: float = GATHER_S) -> None:
        """Have the log of the job say what its workers print, in whole lines."""
        if time.monotonic() - self._gathered_at < pause_s or not self._log.exists():
            return
        self._gathered_at = time.monotonic()
        with self._log.open("rb") as printed:
            printed.seek(self._gathered)
            text = printed.read(GATHER_BYTES)
        text = text[: text.rfind(b"\n") + 1] or (text if len(text) == GATHER_BYTES else b"")
        self._gathered += len(text)
        if text:
            with suppress(OSError), (self._dir / "job.log").open("ab", buffering=0) as log:  # as of a full disk
                log.write(text)

    def _tell(self, coming: Sequence[QueuedJob]) -> None:
        """Note how the workers stand, for those who look at the run."""
        self._taken |= {job.id: job.restarts for job in coming}
        running = sum(job.state == "RUNNING" for job in coming)
        self._meter(running)
        waiting = sorted({job.reason for job in coming if job.state == "PENDING"})
        processes = self._wanted.processes_per_job
        queued, preempted = processes * (len(coming) - running), processes * sum(self._taken.values())
        told = {"queued": queued, "preempted": preempted, "reason": ", ".join(waiting)}
        if told != self._told:
            self._told = told
            aside.write(self._file, json.dumps(told), lasting=False)
            log.info("Jobs of workers: %d running, %d queued (%s)", running, len(coming) - running, told["reason"])

    def _meter(self, running: int) -> None:
        """What the workers use, as far as this process sees it: for when accounting is away."""
        now = time.monotonic()
        self._core_s += (now - self._metered_at) * max(self._running, running) * self._cores
        self._running, self._metered_at = running, now

    def _missing(self, left: int, coming: int) -> int:
        """Jobs that are to be submitted."""
        wanted = min(self._wanted.workers, left) - self.joining.here
        return min(self._most, max(0, math.ceil(wanted / self._wanted.processes_per_job) - coming))

    def _submit(self, count: int, left: int) -> None:
        if not count or self._in_vain >= MOST_IN_VAIN:
            return
        self._in_vain = self._in_vain + 1 if left == self._left else 0
        self._left = left
        if self._in_vain >= MOST_IN_VAIN:
            self._give_up("workers end without a point computed", f"See {self._log}")
            return
        self._submitted = time.time()
        try:
            id = queue.submit(self._script, script.worker_options(self.name, count, self._log, self._wanted))
        except CommandFailed as error:
            self._refused(error, count)
            return
        self._most = min(2 * count, MOST_AT_ONCE)
        self._running += count  # as far as is known until the next look
        log.info("Submitted %d jobs of workers: %s", count, id)

    def _refused(self, error: CommandFailed, count: int) -> None:
        """What the user's limit has no room for is asked for in smaller portions; it is no fault of the workers."""
        log.warning("Slurm takes no workers now: %s", error.stderr.strip() or error.message)
        if heads.is_unanswered(error) or heads.why_later(error):
            self._in_vain -= 1
            self._most = max(1, count // 2)
        elif self._in_vain + 1 >= MOST_IN_VAIN:
            self._give_up(f"Slurm refuses their jobs: {error.stderr.strip()}", "Look at the settings of the place.")

    def _give_up(self, why: str, hint: str) -> None:
        """EmsError where this machine computes nothing itself."""
        self._in_vain = MOST_IN_VAIN
        if not self.joining.here:
            raise EmsError(f"The run has no workers, as {why}.", hint)
        log.error("No more workers are submitted, as %s. %s", why, hint)

    def cost(self, attempt: int, since: datetime) -> Cost:
        price = self._wanted.usd_per_core_hour
        if not price:
            return Cost()
        names, until = [self._head, self.name], queue.clock()
        since = until - (datetime.now(UTC) - since)
        try:
            return Cost(price * queue.core_hours(names, since, until), "accounting")
        except CommandFailed as error:
            log.warning("Accounting is away: %s", error.stderr.strip() or error.message)
        found = self._estimated(since, until)
        late.note(self._dir, late.Due(attempt, price, tuple(names), since.isoformat(), until.isoformat()))
        return found

    def _estimated(self, since: datetime, until: datetime) -> Cost:
        price, hours = self._wanted.usd_per_core_hour, (until - since) / timedelta(hours=1)
        head_h = self._wanted.head_cores * hours
        try:
            completed_h = queue.completed_hours(self.name, since) * self._cores
        except CommandFailed:
            return Cost(price * (head_h + self._core_s / 3600), "estimated")
        return Cost(price * (head_h + completed_h), "completion")

    @property
    def _cores(self) -> int:
        """Of each job of workers."""
        return self._wanted.cores * self._wanted.processes_per_job

    def end(self) -> None:
        self._gather(0.0)
        self._meter(0)
        try:
            queue.cancel([self.name])
        except CommandFailed as error:
            log.warning("Workers could not be cancelled; they end with the driver: %s", error)
