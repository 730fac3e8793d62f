"""A sweep on a bench, whose agents are started by hand."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from ems.databases import State
from ems.node.agent.agent import AgentConfig
from ems.provenance.bundle import _node_code
from ems.spool.folder import read
from ems.stack import sweep_choice
from ems.stack.models import ExperimentSpec
from tests.node.bench import Bench, bundle, family, locked
from tests.processes import eventually, having, matching

POINTS = 40
RESULTS: Mapping[str, object] = {"table": "r"}

# Each call is noted outside of the code. Every tenth point fails while the file `trouble` is there; the last half waits
# for the file `go` while `wait` is there.
CODE = """
import os, pathlib, time
run_dir = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parent
def f(x):
    with open(run_dir / "calls", "a") as calls:
        calls.write(f"{x}\\n")
    while x >= 20 and (run_dir / "wait").exists() and not (run_dir / "go").exists():
        time.sleep(0.02)
    if x % 10 == 3 and (run_dir / "trouble").exists():
        raise ValueError(f"trouble at {x}")
    time.sleep(0.05)
    return {"y": x / 7} if x != 5 else None
"""


class Sweeping:
    """A sweep on a bench, not yet begun."""

    env: Mapping[str, str] = {}

    def __init__(
        self,
        bench: Bench,
        *files: str,
        code: str = CODE,
        points: int = POINTS,
        workers: int = 1,
        max_hours: float | None = None,
        job: Mapping[str, object] = {},
        results: Mapping[str, object] | str = RESULTS,
        **config: float,
    ) -> None:
        self.bench, self.points, self.results = bench, points, results
        spec = self._spec(job, workers)
        kept = sweep_choice.kept(spec.job.model_dump(mode="json"))
        self.run_dir = bench.register(max_hours=max_hours, points=kept, spec=spec)
        self.run_dir.mkdir(parents=True)
        for name in files:
            self.make(name)
        self.package = bundle(self.run_dir, spec, code, _node_code())
        times = {"beat_s": 0.1, "grace_s": 3.0, **config}
        AgentConfig("e1", "sqlite:///ems.db", str(bench.root), str(self.package), sys.prefix, **times).write(
            self.run_dir
        )

    def _spec(self, options: Mapping[str, object], workers: int) -> ExperimentSpec:
        job = {"function": "job:f", "sweep": {"x": {"range": [0, self.points - 1, 1]}}, **options}
        fields = {"project": "p", "experimenter": "researcher", "funding": "f", "environment": "env", "env": self.env}
        place = {"cluster": {"kind": "laptop", "workers": workers}}
        return ExperimentSpec.model_validate({**fields, **place, "job": job, "results": self.results})

    def make(self, name: str) -> None:
        (self.run_dir / name).touch()

    def calls(self) -> Counter[int]:
        file = self.run_dir / "calls"
        return Counter(map(int, file.read_text().split())) if file.exists() else Counter()

    def computed(self) -> list[int]:
        """The points that have rows, or are noted to have none."""
        known = self.bench.database.points("e1")
        return [point for state, points in known if state in {"stored", "empty"} for point in points]

    def stored(self) -> list[int]:
        return list(self.bench.values().get("x", []))

    def spooled(self) -> list[int]:
        """Not by a `Spool`: that would take away what the driver is just writing."""
        files = sorted(matching(self.run_dir, "spool-*/*.batch"))
        return [point for path in files for point in read(path).replaces]

    def process(self, word: str) -> psutil.Process:
        (found,) = having(word, family(self.run_dir))
        return found

    def run(self) -> tuple[State, int, int]:
        row = self.bench.run(self.run_dir)
        return row.state, row.points_done, row.points_failed

    def failed(self) -> list[int]:
        return [mark.point for mark in self.bench.database.failures("e1")]


ROWS = [x for x in range(POINTS) if x != 5]
TROUBLED = [3, 13, 23, 33]


def cut_off(sweep: Sweeping, *, computed: int) -> None:
    """The agent is killed after its driver has spooled some more points than are stored."""
    agent = sweep.bench.start(sweep.run_dir)
    eventually(sweep.stored)
    with locked(sweep.bench):
        sweep.make("go")
        eventually(lambda: len(sweep.spooled()) >= computed)
        agent.kill()
        agent.wait()
    eventually(lambda: family(sweep.run_dir) == [])


@contextmanager
def all_spooled(sweep: Sweeping) -> Iterator[subprocess.Popen[bytes]]:
    """The agent of a sweep whose points are all computed and, in the block, not all stored."""
    agent = sweep.bench.start(sweep.run_dir)
    eventually(sweep.stored)
    with locked(sweep.bench):
        sweep.make("go")
        eventually(lambda: "40 points done" in (sweep.run_dir / "job.log").read_text())
        yield agent
