"""Rounds proposed once more, from the rows that are stored now: whether the same points come out, and if not, where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ems.base.errors import EmsError
from ems.databases import Database, Experiment, Round, rounds
from ems.node.agent import packages
from ems.node.agent.config import AgentConfig
from ems.node.agent.exported import Exported
from ems.node.agent.inputs import lay_out_inputs
from ems.node.agent.point_count import PointCount
from ems.node.agent.unpack import unpack
from ems.node.driver.points import Order
from ems.node.driver.proposer import Proposer, Surroundings
from ems.node.job.variables import job_environment
from ems.stack import proposed
from ems.sweep import Sweep


@dataclass(frozen=True)
class Replayed:
    """A recorded round, and what came of proposing it again.

    `same_rows`: whether it was proposed from the rows and failures that are stored now. `difference`: from the points
    that were recorded; "" if it has none.
    """

    round: Round
    same_rows: bool
    difference: str


def replay(database: Database, experiment: Experiment, config: AgentConfig, folder: Path) -> Iterator[Replayed]:
    """Round by round, each by a fresh process in the experiment's environment; `folder`: an empty one, for its files.

    Nothing is recorded. EmsError if a proposer raises, or cannot be started.
    """
    registration = experiment.registration
    spec = json.loads(registration.spec)
    exported = Exported(folder / "rows", experiment.id)
    count = _count(database, experiment)
    before = [(1, range(len(Sweep.of(rounds.first_grids(registration)))))]
    with (folder / "log").open("wb") as log:
        proposer = Proposer(*_started(config, spec, folder, log.fileno()))
        try:
            for each in database.rounds(experiment.id):
                number, points = before[-1]
                if points:
                    exported.add(database, number, points, count.failed_since(points.start))
                question = {**exported.question, "round": each.number}
                answer = proposer.answer(_written(folder / "question.json", question), lambda: True) or {}
                yield Replayed(each, exported.digest == each.digest, _difference(each, answer))
                before.append((each.number, range(each.first_point, each.first_point + each.points)))
        finally:
            proposer.close()


def _count(database: Database, experiment: Experiment) -> PointCount:
    count = PointCount(experiment.registration.points_total)
    for state, points in database.points(experiment.id):
        count.know(points, state)
    return count


def _started(config: AgentConfig, spec: Mapping[str, Any], folder: Path, output: int) -> tuple[str, Surroundings]:
    """The order file, and the surroundings that the job had."""
    unpacked, job = folder / "code", spec["job"]
    unpack(Path(config.bundle), unpacked)
    if config.inputs:
        lay_out_inputs(config.inputs, folder / "inputs")
    ems = {
        "EMS_EXPERIMENT_ID": config.experiment_id,
        "EMS_PARAMETERS": str(folder / "parameters.json"),
        "EMS_RESULTS_DIR": str(folder / "results"),
        **({"EMS_INPUT_DIR": str(folder / "inputs")} if config.inputs else {}),
    }
    built = Path(config.environment)
    variables = packages.added(job_environment(built, os.environ, job["threads"], ems, spec["env"]), unpacked, built)
    code, here = str(unpacked / "code"), str(folder)
    order = Order(job.get("function", ""), [], code, here, here, here, 1, job["threads"], propose=job["propose"])
    python = str(built / "bin" / "python")
    where = Surroundings(python, str(unpacked / "ems.zip"), variables, output, code)
    return str(_written(folder / "order.json", asdict(order))), where


def _written(file: Path, said: Mapping[str, Any]) -> Path:
    file.write_text(json.dumps(said), encoding="utf-8")
    return file


def _difference(recorded: Round, answer: Mapping[str, Any]) -> str:
    if "error" in answer:
        raise EmsError(f"Round {recorded.number} cannot be proposed again: {answer['error']}")
    try:
        grids = proposed.grids_of(answer)
    except proposed.Unusable as error:
        return f"{error}"
    return _first_difference(recorded.grids, grids)


def _first_difference(was: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str:
    before, after = Sweep.of(was), Sweep.of(now)
    if before.identity() == after.identity():
        return ""
    for place, (old, new) in enumerate(zip_longest(_points(before), _points(after))):
        if old != new:
            return f"its point {place + 1:,} is {_said(new)}, and was {_said(old)}"
    return ""


def _points(sweep: Sweep) -> Iterator[Mapping[str, Any]]:
    return sweep.iterate(0, len(sweep)) if len(sweep) else iter(())


def _said(point: Mapping[str, Any] | None) -> str:
    return "missing" if point is None else ", ".join(f"{name}={value!r}" for name, value in point.items())
