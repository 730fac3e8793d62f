"""A Slurm machine whose commands and shared file system this machine has, as its login nodes do."""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ems.base.messages import Say
from ems.clusters import local
from ems.clusters.slurm import answers, environments
from ems.clusters.slurm.machine import Found, Machine, Run
from ems.clusters.slurm.queue import Queue
from ems.clusters.slurm.wanted import Wanted
from ems.databases import Experiment, Registration
from ems.lab import Lab
from ems.node import run_folder
from ems.node.agent.config import AgentConfig, tell_to_listen
from ems.node.agent.lock import dismiss

if TYPE_CHECKING:
    from ems.provenance.environment import Environment


class Near(Machine):
    """Asked in this process. A run's folder is the lab's own, or that is a link to one in the place's `work_dir`."""

    def __init__(self, jobs: Queue) -> None:
        self._jobs, self._agents = jobs, local.Agents()

    def ask(self, question: str, **words: Any) -> dict[str, Any]:
        return answers.ASKED[question](self._jobs, **words)

    def look(self, lab: Lab, run: Run, *, asks: bool) -> Found | None:
        if not lab.run_dir(run.id).exists():
            return None
        found: Found = self.ask("look", runs=[run.question()], asks=asks)["runs"][0]
        run.saw(found)
        return found

    def work_dir(self, lab: Lab, wanted: Wanted) -> Path:
        return expanded(wanted.work_dir) if wanted.work_dir else lab.work_dir / "runs"

    def runs(self, lab: Lab) -> Path:
        return lab.work_dir / "runs"

    def folder(self, lab: Lab, experiment_id: str) -> Path:
        return lab.run_dir(experiment_id)

    def prepare(self, lab: Lab, registration: Registration, wanted: Wanted, say: Say, *, again: bool) -> None:
        """Environments are built in jobs: here it is written down which."""
        run_dir = lab.run_dir(registration.id)

        def describe(environment: Environment, say: Say) -> None:  # noqa: ARG001
            environments.describe(lab, environment, wanted, run_dir)

        if again:
            local.prepare_again(lab, registration, say, describe)
        else:
            _place(run_dir, wanted)
            local.prepare(lab, registration, say, describe)

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        return local.is_prepared(lab, experiment_id)

    def probe(self, lab: Lab, work_dir: PurePath, wanted: Wanted) -> tuple[PurePath, str]:  # noqa: ARG002
        folder = Path(work_dir) / f"probe-{uuid.uuid4().hex[:12]}"
        AgentConfig("", lab.database_url, str(lab.root), "", "", store=lab.store_url).write(folder)
        return folder, shlex.join([sys.executable, "-m", "ems.clusters.slurm.probe", str(folder)])

    def forget(self, lab: Lab, experiment_id: str) -> None:
        """All of it is there."""

    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        dismiss(lab.run_dir(experiment_id))

    def settle(self, lab: Lab, experiment: Experiment, run: Run, wanted: Callable[[], Wanted]) -> None:  # noqa: ARG002
        self._agents.settle(lab, experiment)

    def nudge(self, run: Run) -> None:
        tell_to_listen(Path(run.folder))

    def log(self, run: Run, start: int) -> bytes | None:
        return run_folder.log(Path(run.folder), start)

    def where(self, file: PurePath) -> str:
        return str(file)


def _place(here: Path, wanted: Wanted) -> None:
    """Have a run's folder lie in the place's `work_dir`, if it has one, and a link to it in the lab's."""
    if not wanted.work_dir or (here.is_dir() and not here.is_symlink()):
        return
    there = expanded(wanted.work_dir) / "runs" / here.name
    there.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not here.is_symlink():
        here.parent.mkdir(parents=True, exist_ok=True)
        here.symlink_to(there)


def expanded(folder: str) -> Path:
    """With what variables and ~ stand for here."""
    return Path(os.path.expandvars(folder)).expanduser()
