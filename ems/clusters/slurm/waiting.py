"""What people hear of the job that leads a run, while it waits."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from ems.clusters.slurm.queue import QueuedJob
from ems.lab.line import duration

LONG = timedelta(minutes=1)  # in the queue, which is worth telling
LEAST_MINUTES = 5  # of a job: a shorter one before a maintenance is not worth asking for


def told(
    job: QueuedJob,
    place: tuple[int, int] | None = None,
    maintenance_at: datetime | None = None,
    waited: timedelta = timedelta(),
) -> str:
    """What people should hear of a job that waits, or runs.

    `place` in line; `maintenance_at`: when the next begins; `waited`: since when it has been in the queue this time.
    """
    if job.state != "PENDING":
        return f"Slurm's job {job.id} is {job.state.lower()}" + (f" on {job.nodes}" if job.nodes else "")
    if job.is_held_for_maintenance:
        return f"Slurm's job {job.id} is held for maintenance ({job.reason}){_way_before(job, maintenance_at)}"
    if job.reason.startswith("JobHeld"):
        return f"Slurm's job {job.id} is held ({job.reason}): release it with: scontrol release {job.id}"
    so_far = f" for {duration(waited)}" if waited >= LONG else ""
    line = f", {place[0]:,} of {place[1]:,} in line" if place else ""
    start = f", expected to start at {job.start}" if job.start not in {"N/A", ""} else ""
    return f"Slurm's job {job.id} is queued{so_far} ({job.reason}){line}{start}"


def _way_before(job: QueuedJob, maintenance_at: datetime | None) -> str:
    minutes = math.floor((maintenance_at - datetime.now(UTC)) / timedelta(minutes=1)) if maintenance_at else 0
    if minutes < LEAST_MINUTES:
        return f", expected to start at {job.start}"
    hours = math.floor(minutes / 6) / 10 or minutes / 60
    now = f"scontrol update jobid={job.id} timelimit={math.floor(60 * hours)}"
    return f": ask for {hours:.2g} h or less (`hours`, of the head `head.hours`); of this job: {now}"
