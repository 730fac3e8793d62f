"""The job of a stack: of its newest experiment, or as its file describes it where nothing is registered yet."""

from __future__ import annotations

import json
from typing import Any

from ems.base.errors import NoTables, UserError
from ems.databases import Experiment
from ems.lab.stacks import StackFiles
from ems.stack import sweep_forms
from ems.stack.models import ExperimentSpec


def job_of(files: StackFiles, stack: str) -> tuple[dict[str, Any], Experiment | None]:
    """The job as a spec has it, and the newest experiment, if there is one.

    UserError if it is not the stack of an experiment, StackFileError if its file has faults and nothing is registered.
    """
    if experiment := _newest(files, stack):
        return json.loads(experiment.registration.spec)["job"], experiment
    files.lab.known([stack])
    described = files.spec(stack)
    if not isinstance(described, ExperimentSpec):
        raise UserError(f"{stack} is not the stack of an experiment.", "Name one of these: ems status")
    job = described.job.model_dump(mode="json")
    return job | ({"sweep": sweep_forms.recorded(job["sweep"])} if "sweep" in job else {}), None


def _newest(files: StackFiles, stack: str) -> Experiment | None:
    with files.lab.database() as database:
        try:
            return next(iter(database.newest([stack], also=["spec"])), None)
        except NoTables:
            return None
