"""What the jobs of a stack left unread, and its removal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ems.base import aside
from ems.databases import Experiment
from ems.lab import Lab
from ems.lab.experiments import latest
from ems.node.agent import leftovers
from ems.node.agent.leftovers import FileLeft, is_checkpoint
from ems.node.job import checkpoints


@dataclass(frozen=True)
class Left:
    """What the jobs of one experiment left. `folder`: where it is on this machine; None if it is elsewhere."""

    experiment: Experiment
    files: Sequence[FileLeft]
    folder: Path | None

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(file["bytes"] for file in self.files)

    @property
    def count(self) -> int:
        """How many files these are."""
        return sum(file["files"] for file in self.files)


def of_row(experiment: Experiment) -> list[FileLeft]:
    """What the experiment's row says that is left."""
    found: list[FileLeft] = json.loads(experiment.files_left) if experiment.files_left else []
    return found


def folder_of(lab: Lab, experiment_id: str) -> Path:
    """Where it is kept on this machine, if there is any."""
    return lab.run_dir(experiment_id) / leftovers.FOLDER


def of_stack(lab: Lab, stack: str) -> list[Left]:
    """Of each experiment of the stack that has any; errors as of `latest`."""
    latest(lab, stack)
    with lab.database() as database:
        experiments = database.experiments(stack)
    return [found for experiment in experiments if (found := _left(lab, experiment)).files]


def _left(lab: Lab, experiment: Experiment) -> Left:
    """Of one that is not over, a run may go on from its checkpoint."""
    run_dir, folder = lab.run_dir(experiment.id), folder_of(lab, experiment.id)
    is_over = experiment.state.finished
    kept = leftovers.checkpoint(run_dir, experiment.attempt) if is_over else []
    if folder.is_dir() or kept:
        return Left(experiment, [*leftovers.listed(run_dir), *kept], folder)
    return Left(experiment, [file for file in of_row(experiment) if is_over or not is_checkpoint(file)], None)


def remove(lab: Lab, found: Sequence[Left]) -> None:
    """Remove what is on this machine, and note it in the rows. OSError: no right."""
    with lab.database() as database:
        for left in found:
            if left.folder:
                aside.remove(left.folder)
                if left.experiment.state.finished:
                    checkpoints.forget(lab.run_dir(left.experiment.id))
                database.note_left(left.experiment.id, "")
