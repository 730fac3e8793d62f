"""A lab in which agents are started by hand, and what is done to them."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from ems.databases import Database, Experiment, Experimenter, Funding, Project, Registration, connect
from ems.node.agent.agent import AgentConfig
from ems.node.job.keeper import MARKER
from ems.stack.models import ExperimentSpec
from tests.processes import PATIENCE_S, eventually

ROWS = {"n": list(range(200)), "x": [n / 7 for n in range(200)]}

# Writes ROWS in two halves; between them it waits for the file `go`, if `wait` is among the parameters.
JOB = """
import json, os, pathlib, time
results = pathlib.Path(os.environ["EMS_RESULTS_DIR"])
run_dir, parameters = results.parent, json.load(open(os.environ["EMS_PARAMETERS"]))
with open(run_dir / "starts", "a") as starts:
    starts.write("x")
with open(results / "a.csv", "w", buffering=1) as file:
    print("n,x", file=file)
    for n in range(200):
        if n == 100 and parameters.get("wait"):
            (run_dir / "half").touch()
            while not (run_dir / "go").exists():
                time.sleep(0.02)
        print(f"{n},{n / 7!r}", file=file)
"""


def bundle(folder: Path, spec: ExperimentSpec, code: str, ems: bytes = b"") -> Path:
    aside = folder / "aside.zip"
    with zipfile.ZipFile(aside, "w") as archive:
        archive.writestr("code/job.py", code)
        archive.writestr("spec.json", spec.model_dump_json())
        if ems:
            archive.writestr("ems.zip", ems)
    return aside.rename(folder / f"{hashlib.sha256(aside.read_bytes()).hexdigest()}.zip")


def command_spec(columns: dict[str, str] | None = None) -> ExperimentSpec:
    job = {"command": ("python", "job.py"), "parameters": {"wait": 1}}
    fields = {"project": "p", "experimenter": "researcher", "funding": "f", "environment": "env"}
    return ExperimentSpec.model_validate({**fields, "job": job, "results": {"table": "r", "columns": columns or {}}})


@dataclass
class Bench:
    """A lab with one database, in which agents are started by hand."""

    root: Path
    database: Database
    url: str
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def register(
        self, id: str = "e1", max_hours: float | None = None, points: int = 1, spec: ExperimentSpec | None = None
    ) -> Path:
        self.database.register(
            Registration(
                id=id,
                stack="s",
                digest=id,
                experimenter="researcher",
                project="p",
                funding="f",
                spec=(spec or command_spec()).model_dump_json(),
                repository="",
                commit="c",
                tree="t",
                stack_file_commit="c",
                environment="env",
                environment_digest="d",
                python="3.11",
                cluster="laptop",
                results_table="" if spec and spec.results.none else "r",
                points_total=points,
                max_hours=max_hours,
            )
        )
        return self.root / "runs" / id

    def prepare(self, run_dir: Path, code: str = JOB, id: str = "e1", ems: bytes = b"", **config: float) -> Path:
        run_dir.mkdir(parents=True)
        times = {"beat_s": 0.1, "grace_s": 0.5, **config}
        package = str(bundle(run_dir, command_spec(), code, ems))
        AgentConfig(id, self.url, str(self.root), package, sys.prefix, **times).write(run_dir)
        return run_dir

    def new(self, code: str = JOB, max_hours: float | None = None, ems: bytes = b"", **config: float) -> Path:
        return self.prepare(self.register(max_hours=max_hours), code, ems=ems, **config)

    def start(self, run_dir: Path) -> subprocess.Popen[bytes]:
        with (run_dir / "agent.log").open("ab") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", "ems.node", run_dir], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.agents.append(agent)
        return agent

    def run(self, run_dir: Path, id: str = "e1") -> Experiment:
        assert self.start(run_dir).wait(PATIENCE_S) == 0
        return self.row(id)

    def row(self, id: str = "e1") -> Experiment:
        row = self.database.experiment(id)
        assert row
        return row

    def values(self, id: str = "e1") -> dict[str, list]:
        found: dict[str, list] = {}
        for batch in self.database.results(id):
            for column in batch.columns:
                found.setdefault(column.name, []).extend(column.values)
        return found


@contextlib.contextmanager
def bench_of(url: str, root: Path) -> Iterator[Bench]:
    database = connect(url, root)
    database.create()
    database.upsert(Experimenter("researcher", "A Researcher"))
    database.upsert(Project("p", "Project"))
    database.upsert(Funding("f", "Agency"))
    made = Bench(root, database, url)
    yield made
    for agent in made.agents:
        agent.kill()
        agent.wait()
    database.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_of("sqlite:///ems.db", tmp_path) as made:
        yield made


def half(run_dir: Path, agent: subprocess.Popen[bytes]) -> None:
    """Wait until the job of `agent` has written half of its rows."""
    eventually(lambda: (run_dir / "half").exists() or agent.poll() is not None)
    assert agent.poll() is None, (run_dir / "agent.log").read_text()


def pause(agent: subprocess.Popen[bytes], bench: Bench) -> None:
    """Stop the agent outside of a transaction: within one it would lock the whole database."""
    for _ in range(1000):
        agent.send_signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(agent.pid).status() == psutil.STATUS_STOPPED)
        time.sleep(0.05)  # its threads stop one by one
        with contextlib.suppress(sqlite3.OperationalError), locked(bench, timeout_s=0):
            return
        agent.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("The agent is always within a transaction.")


def go(run_dir: Path) -> None:
    (run_dir / "go").touch()


class locked:
    """The database, locked by another connection."""

    def __init__(self, bench: Bench, timeout_s: float = PATIENCE_S) -> None:
        self._connection = sqlite3.connect(bench.root / "ems.db", isolation_level=None, timeout=timeout_s)

    def __enter__(self) -> None:
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            self._connection.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


def lapse(bench: Bench) -> None:
    """End the lease of the run, as time does."""
    with closing(sqlite3.connect(bench.root / "ems.db")) as connection, connection:
        connection.execute("UPDATE run SET lease_until = '2020-01-01 00:00:00'")


def family(run_dir: Path) -> list[psutil.Process]:
    """Keeper and command."""
    token = run_dir / "job.token"
    return [p for p in psutil.process_iter() if token.exists() and marker(p) == token.read_text()]


def marker(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARKER)
    except psutil.Error:
        return None
