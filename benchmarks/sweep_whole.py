"""A sweep of 3,123,120 points by agent, driver, spool and SQLite: first rows, kill -9 of all half-way, resume, memory.

python benchmarks/sweep_whole.py [SEEDS]      1,560 points per seed; default 2,002
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks.sqlite_rows import claimed
from ems.databases import Database, Experiment, connect
from ems.node.agent.config import AgentConfig
from ems.provenance import bundle
from ems.spool import folder as spool
from ems.stack.models import ExperimentSpec

CODE = """
def cheap(n, seed):
    return {"x": n * 0.5, "y": seed / 7, "label": "a"}
"""


def prepared(folder: Path, database: Database, seeds: int) -> Path:
    """The run folder of an experiment that is registered and has not begun."""
    run_dir = folder / "run"
    grid = {"n": {"range": [0, 1559, 1]}, "seed": {"count": seeds}}
    names = {"project": "study", "experimenter": "researcher", "funding": "grant", "environment": "e"}
    spec = ExperimentSpec.model_validate(
        {**names, "job": {"function": "cheap:cheap", "sweep": grid}, "results": {"table": "whole"}}
        | {"cluster": {"kind": "laptop", "workers": 2}}
    )
    row = database.experiment("e" * 36)
    assert row
    registration = replace(
        row.registration, id="w" * 36, stack="whole", results_table="whole", points_total=1560 * seeds
    )
    database.register(replace(registration, spec=spec.model_dump_json()))
    run_dir.mkdir()
    aside = run_dir / "aside.zip"
    with zipfile.ZipFile(aside, "w") as archive:
        archive.writestr("code/cheap.py", CODE)
        archive.writestr("spec.json", spec.model_dump_json())
        archive.writestr("ems.zip", bundle._node_code())
    package = aside.rename(run_dir / f"{hashlib.sha256(aside.read_bytes()).hexdigest()}.zip")
    AgentConfig("w" * 36, "sqlite:///ems.db", str(folder), str(package), sys.prefix).write(run_dir)
    return run_dir


class Watched:
    """An agent with all its processes, and the most memory that each kind of them took."""

    def __init__(self, run_dir: Path, database: Database) -> None:
        self._database, self.most_mb = database, dict.fromkeys(("agent", "driver", "worker"), 0.0)
        with (run_dir / "agent.log").open("ab") as log:
            self._agent = subprocess.Popen([sys.executable, "-m", "ems.node", str(run_dir)], stdout=log, stderr=log)
        self._began = time.perf_counter()

    def until(self, rows: int) -> float:
        """Seconds since the start, at which more than `rows` were stored, or the run had ended."""
        while self.row().rows_stored <= rows and self._agent.poll() is None:
            self._measure()
            time.sleep(0.1)
        return time.perf_counter() - self._began

    def row(self) -> Experiment:
        row = self._database.experiment("w" * 36)
        assert row
        return row

    def _family(self) -> list[psutil.Process]:
        return [psutil.Process(self._agent.pid), *psutil.Process(self._agent.pid).children(recursive=True)]

    def _measure(self) -> None:
        for process in self._family():
            try:
                words, size = " ".join(process.cmdline()), process.memory_info().rss / 1e6
            except psutil.NoSuchProcess:
                continue
            kind = "worker" if "ems.node.driver.worker" in words else "driver" if "node.driver" in words else "agent"
            self.most_mb[kind] = max(self.most_mb[kind], size)

    def kill(self) -> None:
        for process in self._family():
            process.kill()
        self._agent.wait()

    def memory(self) -> str:
        return ", ".join(f"{kind} {size:.0f} MB" for kind, size in self.most_mb.items())


def main(seeds: int) -> None:
    points = 1560 * seeds
    with tempfile.TemporaryDirectory() as name, closing(connect("sqlite:///ems.db", Path(name))) as database:
        claimed(database)
        run_dir = prepared(Path(name), database, seeds)
        first = Watched(run_dir, database)
        say(f"{points:,} points: first rows stored after {first.until(0):.1f} s; {first.memory()}")
        half_s = first.until(points // 2)
        say(f"half of them after {half_s:.0f} s, {points / 2 / half_s:,.0f} points/s; {first.memory()}")
        first.kill()
        spooled = sum(len(spool.read(path)) for path in run_dir.glob("spool-*/*.batch"))
        before = first.row().rows_stored + spooled
        second = Watched(run_dir, database)
        say(f"killed; after the restart, newly computed rows are stored within {second.until(before):.1f} s")
        second.until(points)
        row = second.row()
        say(f"{row.state}: {row.points_done:,} points, {row.rows_stored:,} rows; {second.memory()}")
        spans = [(state, len(found)) for state, found in database.points("w" * 36)]
        assert (row.points_done, row.rows_stored, spans) == (points, points, [("stored", points)])


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2002)
