"""Rounds of points that results decide, with real agents, drivers and proposers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping

import psutil
import pytest

from ems.databases import State
from ems.stack.models import ExperimentSpec
from tests.node.bench import Bench, bench, family
from tests.node.test_sweep_attempt import Sweeping
from tests.processes import PATIENCE_S, eventually, having

__all__ = ["bench"]

# Each call is noted. `propose` bisects for the place where f turns from 0 to 1, and waits at the gates that are there.
CODE = """
import os, pathlib, signal, time
run_dir = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parent
def gate(name):
    while (run_dir / name).exists():
        (run_dir / f"{name}-reached").touch()
        time.sleep(0.02)
def f(x, **more):
    with open(run_dir / "calls", "a") as calls:
        calls.write(f"{x}\\n")
    gate("gate-f")
    if x in (0.625, ) and (run_dir / "trouble").exists():
        raise ValueError("trouble")
    return {"y": int(x > 0.7)}
def propose(rows, round, seed):
    with open(run_dir / "proposed", "a") as calls:
        calls.write(f"{round} {seed}\\n")
    gate("gate-propose")
    low = max((row["x"] for row in rows if not row["y"]), default=0.0)
    high = min((row["x"] for row in rows if row["y"]), default=1.0)
    if high - low < 0.05:
        return None
    return [{"x": (low + high) / 2}]
"""
EXPECTED = [0.0, 1.0, 0.5, 0.75, 0.625, 0.6875, 0.71875]


class Rounds(Sweeping):
    def __init__(self, bench: Bench, *files: str, limits: Mapping[str, int] = {}, code: str = CODE, **job: object):
        self._limits = limits
        job = {"propose": "job:propose", "sweep": {"x": [0.0, 1.0]}, **job}
        first = len(job["sweep"]["x"]) if job["sweep"] else 0
        super().__init__(bench, *files, code=code, points=first, job={k: v for k, v in job.items() if v is not None})

    def _spec(self, options: Mapping[str, object], workers: int) -> ExperimentSpec:
        job = {"function": "job:f", **options}
        fields = {"project": "p", "experimenter": "researcher", "funding": "f", "environment": "env"}
        place = {"cluster": {"kind": "laptop", "workers": workers}, "limits": self._limits}
        return ExperimentSpec.model_validate({**fields, **place, "job": job, "results": {"table": "r"}})

    def noted(self, name: str) -> list[str]:
        file = self.run_dir / name
        return file.read_text().splitlines() if file.exists() else []

    @property
    def log(self) -> str:
        return "".join(file.read_text() for file in self.run_dir.glob("*.log"))


def test_rounds_go_on_until_nothing_is_proposed(bench):
    rounds = Rounds(bench)
    assert rounds.run() == (State.SUCCEEDED, 7, 0), rounds.log
    assert bench.values()["x"] == EXPECTED
    assert bench.row().log_tail == "6 rounds, 7 points; job:propose proposed no more"
    assert bench.row().registration.points_total == 7
    recorded = bench.database.rounds("e1")
    assert [(each.number, each.first_point, each.points) for each in recorded] == [
        *((number, number, 1) for number in range(2, 7)),
        (7, 7, 0),
    ]
    assert len({each.digest for each in recorded}) == 6
    assert sorted(map(float, rounds.noted("calls"))) == sorted(EXPECTED)
    assert len(rounds.noted("proposed")) == len(set(rounds.noted("proposed"))) == 6
