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
from ems.node.agent.leftovers import FileLeft


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
    folder = folder_of(lab, experiment.id)
    if folder.is_dir():
        return Left(experiment, leftovers.listed(lab.run_dir(experiment.id)), folder)
    return Left(experiment, of_row(experiment), None)


def remove(lab: Lab, found: Sequence[Left]) -> None:
    """Remove what is on this machine, and note it in the rows. OSError: no right."""
    with lab.database() as database:
        for left in found:
            if left.folder:
                aside.remove(left.folder)
                database.note_left(left.experiment.id, "")
