"""The time between two rounds of 1,000 points, in a table of SQLite that has a million rows of rounds before.

    python benchmarks/rounds.py [rows]

An agent runs as `ems up` starts it, with its driver and proposers. A proposer reads the rows of the last round.
`whole_round_s` is from one call of it to the next: handing out, computing and storing 1,000 points, reading their rows,
proposing. `asked_to_first_call_s` is from such a call to the first of the function in the new round. Some 30 s.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import subprocess
import sys
import time
import zipfile
from array import array
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from ems.databases import Claim, Database, Experimenter, Funding, Outcome, Project, Registration, State, connect
from ems.node.agent.config import AgentConfig
from ems.provenance.bundle import _node_code
from ems.spool.batch import Batch, Column
from ems.stack.models import ExperimentSpec

ROUND, ROUNDS, AT_ONCE = 1_000, 10, 50_000
CODE = """
import pathlib, time
folder = pathlib.Path({folder!r})
def f(x):
    (folder / f"call-{{time.time_ns()}}").touch() if x == int(x / 1000) * 1000 else None
    return {{"y": x / 7}}
def propose(rows, round):
    last = rows.of_round(-1)
    (folder / f"asked-{{time.time_ns()}}").touch()
    first = int(max(max(part["x"]) for part in last.batches(["x"]))) + 1
    return {{"x": {{"range": [first, first + 999, 1]}}}} if round <= {rounds} + 1 else None
"""


def main(rows: int) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        with closing(connect("sqlite:///ems.db", root)) as database:
            registration, run_dir = prepare(database, root, rows)
            fill(database, registration, rows)
            began = time.monotonic()
            with (run_dir / "agent.log").open("wb") as log:
                subprocess.run([sys.executable, "-m", "ems.node", str(run_dir)], check=True, stdout=log, stderr=log)
            took_s = time.monotonic() - began
            row = database.experiment(registration.id)
        assert row and row.state is State.SUCCEEDED, row
        report(root, rows, took_s, row.points_done)


def prepare(database: Database, root: Path, rows: int) -> tuple[Registration, Path]:
    """A lab whose experiment has a first round of so many points."""
    database.create()
    for record in (Experimenter("me", "Me"), Project("p", "P"), Funding("f", "F")):
        database.upsert(record)
    job = {"function": "job:f", "propose": "job:propose", "sweep": {"x": {"range": [0, rows - 1, 1]}}}
    about = {"project": "p", "experimenter": "me", "funding": "f", "environment": "env", "results": {"table": "r"}}
    spec = ExperimentSpec.model_validate({**about, "job": job, "cluster": {"kind": "laptop", "workers": 2}})
    registration = Registration(
        *("e1", "s", "d", "me", "p", "f", spec.model_dump_json(), "", "c", "t", "c", "env", "d", "3.11", "laptop", "r"),
        points_total=rows,
    )
    database.register(registration)
    run_dir = root / "runs" / "e1"
    run_dir.mkdir(parents=True)
    (root / "notes").mkdir()
    part = root / "bundle"
    with zipfile.ZipFile(part, "w") as archive:
        archive.writestr("code/job.py", CODE.format(folder=str(root / "notes"), rounds=ROUNDS))
        archive.writestr("spec.json", registration.spec)
        archive.writestr("ems.zip", _node_code())
    package = part.rename(root / f"{hashlib.sha256(part.read_bytes()).hexdigest()}.zip")
    AgentConfig("e1", "sqlite:///ems.db", str(root), str(package), sys.prefix).write(run_dir)
    return registration, run_dir


def fill(database: Database, registration: Registration, rows: int) -> None:
    """The rows of the first round, as an earlier run has left them."""
    claim = database.claim(registration.id, agent="earlier", lease_s=600.0)
    assert isinstance(claim, Claim)
    for start in range(0, rows, AT_ONCE):
        points = array("q", range(start, min(start + AT_ONCE, rows)))
        columns = (Column("x", "int64", points), Column("y", "float64", array("d", [x / 7 for x in points])))
        database.store(claim, Batch(points, array("q", bytes(8 * len(points))), columns))
    database.release(claim, Outcome(State.LOST, rows, 0))


def report(root: Path, rows: int, took_s: float, points: int) -> None:
    """From what the function and the proposer have noted, and from the recorded rounds."""
    asked, calls = (noted(root / "notes", word) for word in ("asked", "call"))
    gaps_s = [(call - ask) / 1e9 for ask, call in zip(asked, calls, strict=False)]
    cycle_s = [(later - earlier) / 1e9 for earlier, later in pairwise(asked)]
    found = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "rows_before": rows,
        "rounds": len(asked) - 1,
        "points": points,
        "asked_to_first_call_s": round(statistics.median(gaps_s), 3),
        "whole_round_s": round(statistics.median(cycle_s), 3),
        "agent_s": round(took_s, 1),
    }
    print(json.dumps(found, indent=2))


def noted(folder: Path, word: str) -> list[int]:
    """The moments that have a file of this name, in ns."""
    return sorted(int(file.name.partition("-")[2]) for file in folder.glob(f"{word}-*"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
