"""The sweep of a stack: of its newest experiment, or as its file describes it where nothing is registered yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ems.base.errors import NoTables, UserError
from ems.databases import Database, Experiment, rounds
from ems.lab.stacks import StackFiles
from ems.stack import sweep_forms
from ems.stack.models import ExperimentSpec
from ems.sweep import Sweep, exclusion


class Points(NamedTuple):
    """The sweep of a stack with what it leaves out, a bitmap; and the newest experiment, if there is one."""

    sweep: Sweep
    left_out: bytes
    experiment: Experiment | None


def points_of(files: StackFiles, database: Database, stack: str) -> Points:
    """The points of a stack, with all rounds that were proposed by now.

    UserError if it is not the stack of a sweep, StackFileError if its file has faults and nothing is registered.
    """
    experiment = _newest(database, stack)
    if experiment is None:
        job = _described(files, stack)
        return Points(Sweep.of(job.get("sweep", [])), exclusion.of_job(job), None)
    job = _swept(stack, json.loads(experiment.registration.spec).get("job", {}))
    return Points(rounds.sweep_of(database, experiment.registration), exclusion.of_job(job), experiment)


def _described(files: StackFiles, stack: str) -> Mapping[str, Any]:
    files.lab.known([stack])
    described = files.spec(stack)
    if not isinstance(described, ExperimentSpec):
        raise UserError(f"{stack} is not the stack of an experiment.", "Name one of these: ems status")
    job = _swept(stack, described.job.model_dump(mode="json"))
    return {**job, "sweep": sweep_forms.recorded(job.get("sweep", ()))}


def _swept(stack: str, job: Mapping[str, Any]) -> Mapping[str, Any]:
    """The job, which has points."""
    if "sweep" in job or "propose" in job:
        return job
    raise UserError(f"{stack} is not a sweep: it has no points.", f"See how it stands: ems status {stack}")


def _newest(database: Database, stack: str) -> Experiment | None:
    try:
        return next(iter(database.newest([stack], also=["spec"])), None)
    except NoTables:
        return None
