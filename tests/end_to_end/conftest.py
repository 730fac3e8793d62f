"""A lab of its own for each test, driven through the command line and the real engine."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from ems.cli import scaffold
from ems.engine import install as engine
from tests import tally
from tests.processes import PATIENCE_S

JOB = """
import csv, json, os, pathlib, sys, time
p = json.loads(pathlib.Path(os.environ["EMS_PARAMETERS"]).read_text())
with open(os.path.join(os.environ["EMS_RESULTS_DIR"], "rows.csv"), "w", newline="", buffering=1) as file:
    writer = csv.writer(file)
    writer.writerow(["i", "value"])
    for i in range(p["rows"]):
        writer.writerow([i, i / 3])
        print("row", i, flush=True)
        time.sleep(p["pause_s"])
        while i == p.get("held_at") and os.path.exists(p["held"]):
            time.sleep(0.05)
if p["trouble"] and os.path.exists(p["trouble"]):
    sys.exit("in trouble")
"""
EMS = (sys.executable, "-m", "ems.cli")


@dataclass
class User:
    """Somebody at work in a lab: runs commands, changes files, looks at the database."""

    root: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def ems(self, *words: str, expect: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `ems`; with `expect`, assert its exit code."""
        done = subprocess.run(
            [*EMS, *words],
            check=False,
            cwd=self.root,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL,
        )
        if expect is not None:
            assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def pulumi(self, *words: str, expect: int | None = 0, **env: str) -> str:
        done = self.ems("pulumi", *words, expect=expect, **env)
        return done.stdout + done.stderr

    def fails(self, *words: str) -> str:
        """What Pulumi says while it fails: its exit code differs between versions."""
        done = self.ems("pulumi", *words, expect=None)
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Begin `ems …` in a session of its own."""
        with (self.root / ".ems" / f"command-{len(self.started)}.log").open("w") as log:
            process = subprocess.Popen(
                [*EMS, *words],
                cwd=self.root,
                env={**os.environ, **env},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                text=True,
            )
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        return (self.root / ".ems" / f"command-{self.started.index(process)}.log").read_text()

    def experiment(self, **parameters: Any) -> None:
        """Write the stack file and the code of stack `e`, and commit them; at row `held_at` it waits for `go_on`."""
        if "held_at" in parameters:
            self.held.touch()
            parameters["held"] = str(self.held)
        limits = parameters.pop("limits", {})
        job = {"rows": 6, "pause_s": 0.0, "trouble": ""} | parameters
        described = {
            "project": "first",
            "experimenter": "me",
            "funding": "unfunded",
            "code": {"paths": ["experiments/e"]},
            "environment": "pi",
            "job": {"command": ["python", "experiments/e/job.py"], "parameters": job},
            "results": {"table": "e"},
            "limits": limits,
        }
        self.write("stacks/Pulumi.e.yaml", json.dumps({"config": {"ems:experiment": described}}, indent=2))
        if not (self.root / "experiments/e/job.py").exists():
            self.write("experiments/e/job.py", JOB)
        self.commit("An experiment")

    @property
    def held(self) -> Path:
        return self.root / ".ems/held"

    def go_on(self) -> None:
        self.held.unlink(missing_ok=True)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, message: str) -> None:
        identity = ["-c", "user.name=EMS", "-c", "user.email=ems@localhost"]
        subprocess.run(["git", "add", "-A"], cwd=self.root, check=True)
        subprocess.run(["git", *identity, "commit", "-qm", message, "--allow-empty"], cwd=self.root, check=True)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self.root}/.ems/ems.db?mode=ro", uri=True, timeout=PATIENCE_S)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def state(self, stack: str = "e") -> str:
        ((state,),) = self.query(f"SELECT state FROM experiment WHERE stack = '{stack}'")
        return str(state)

    def rows(self) -> list[tuple[Any, ...]]:
        return self.query("SELECT i, value FROM e ORDER BY point, row")

    def stored(self) -> int:
        try:
            ((count,),) = self.query("SELECT rows_stored FROM experiment WHERE stack = 'e'")
        except (sqlite3.OperationalError, ValueError):
            return 0
        return int(count)

    def deployment(self, stack: str = "e") -> dict[str, Any]:
        """What the stack's state holds."""
        return dict(json.loads(self.pulumi("stack", "export", "--stack", stack))["deployment"])

    def resources(self, stack: str = "e") -> list[str]:
        """Types of the resources in the stack's state."""
        return [resource["type"] for resource in self.deployment(stack).get("resources") or []]

    def locks(self) -> list[Path]:
        return list((self.root / ".ems/state/.pulumi/locks").rglob("*.json"))

    def assert_nothing_left(self) -> None:
        """No process, no lock, no operation that Pulumi believes to be under way; a preview has no complaint."""
        self.wait(lambda: not self.processes())
        assert self.locks() == []
        assert not self.deployment().get("pending_operations")
        shown = self.pulumi("preview", "--stack", "e")
        assert "warning" not in shown and "pending" not in shown and "error" not in shown

    def assert_undisturbed(self, rows: int) -> None:
        """The end of a run, and what it leaves, are those of one that nothing happened to."""
        tally.compare(self.rows(), expected(rows), key=1)
        assert self.query("SELECT state, rows_stored, machines, error FROM experiment") == [("succeeded", rows, 0, "")]
        self.assert_nothing_left()
        assert "ems:index:Laptop" not in self.resources()

    def processes(self, *words: str, name: str = "") -> list[psutil.Process]:
        """Living processes of this lab whose command line contains all `words`; with `name`, of that program."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                ours = str(self.root) in line or Path(process.cwd()).is_relative_to(self.root)
                wanted = all(word in line for word in words) and name in {"", process.name()}
                if ours and wanted and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def updates(self) -> list[psutil.Process]:
        """The `pulumi up` under way."""
        return self.processes(" up ", name="pulumi")

    def agents(self) -> list[psutil.Process]:
        return self.processes("ems.node")

    def wait(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if result := condition():
                return result
            time.sleep(0.05)
        logs = "\n".join(self.said(process) for process in self.started)
        raise AssertionError(f"not within {PATIENCE_S} s: {condition}\n{logs}")

    def end(self) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it has just ended by itself
                process.kill()
        for process in self.started:
            process.wait()


def expected(rows: int) -> list[tuple[int, float]]:
    return [(i, i / 3) for i in range(rows)]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab whose stack `lab` is up, to be copied."""
    engine.ensure()
    root = tmp_path_factory.mktemp("template") / "lab"
    scaffold.init(root, "lab")
    User(root).ems("up", "lab")
    return root


@pytest.fixture
def user(template: Path, tmp_path: Path) -> Iterator[User]:
    root = tmp_path / "lab"
    subprocess.run(["cp", "-a", str(template), str(root)], check=True)
    somebody = User(root)
    yield somebody
    somebody.end()
