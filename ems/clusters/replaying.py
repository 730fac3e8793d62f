"""Rounds of an experiment proposed again on this machine, whatever place it ran at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ems.base.errors import UserError
from ems.base.messages import Say
from ems.clusters import local
from ems.databases import Database, Experiment, rounds
from ems.lab import Lab
from ems.node.agent.config import AgentConfig
from ems.node.agent.replay import Replayed, replay


def replayed(lab: Lab, database: Database, experiment: Experiment, say: Say) -> Iterator[Replayed]:
    """As `ems.node.agent.replay`, with code and environment made ready first.

    UserError unless results decide the experiment's points; ProvenanceError if its code or environment is gone.
    """
    require_rounds(experiment)
    local.prepare_again(lab, experiment.registration, say)
    with TemporaryDirectory(dir=lab.work_dir, prefix="replay-") as folder:
        say("proposing")
        yield from replay(database, experiment, AgentConfig.read(lab.run_dir(experiment.id)), Path(folder).resolve())


def require_rounds(experiment: Experiment) -> None:
    """UserError unless results decide the experiment's points."""
    if not rounds.is_proposing(experiment.registration):
        stack = experiment.registration.stack
        raise UserError(f"{stack} has no rounds: its grid has all points.", "Rounds come of `job: {propose: …}`.")
