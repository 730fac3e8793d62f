"""The folder of a run: what describes it, whose name its agents have, who holds its lock."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ems.databases import State
from ems.node.agent import lock
from ems.node.agent.agent import AgentConfig, agent_name
from tests.node.bench import ROWS, Bench, bench, family, go, half, lapse, pause
from tests.processes import PATIENCE_S, eventually

__all__ = ["bench"]


def test_a_folder_without_a_description_is_a_users_mistake(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "ems.node", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{tmp_path / 'agent.json'} does not describe a run" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_description_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = AgentConfig("e", "sqlite:///ems.db", "/lab", "/lab/b.zip", "/env", spool_limit_mb=1.5)
    assert not AgentConfig.exists(tmp_path / "run")
    config.write(tmp_path / "run")
    assert AgentConfig.exists(tmp_path / "run")
    assert AgentConfig.read(tmp_path / "run") == config
    assert json.loads((tmp_path / "run" / "agent.json").read_text())["lease_s"] == 30.0


def test_a_folders_agents_have_one_name(tmp_path: Path) -> None:
    name = agent_name(tmp_path)
    assert agent_name(tmp_path) == name
    assert name.startswith(os.uname().nodename + ":")
    (tmp_path / "other").mkdir()
    assert agent_name(tmp_path / "other") != name


def test_a_copy_of_a_folder_has_other_agents_and_a_moved_one_the_same(tmp_path: Path) -> None:
    """So no copy takes the claim of a run that goes on in the original."""
    (tmp_path / "run").mkdir()
    name = agent_name(tmp_path / "run")
    subprocess.run(["cp", "-a", tmp_path / "run", tmp_path / "copy"], check=True)
    assert agent_name(tmp_path / "copy") != name
    assert agent_name((tmp_path / "run").rename(tmp_path / "moved")) == name


def test_agents_of_a_copied_folder_leave_a_run_alone(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    subprocess.run(["cp", "-a", run_dir, bench.root / "copy"], check=True)
    assert bench.start(bench.root / "copy").wait(PATIENCE_S) == 0
    go(run_dir)
    assert agent.wait(PATIENCE_S) == 0
    assert (bench.row().state, bench.row().attempt, bench.values()) == (State.SUCCEEDED, 1, ROWS)


@pytest.mark.parametrize("content", [b"", b"lap", b"\xff", b"two words:0123456789ab"])
def test_a_damaged_name_is_made_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "agent.id").write_bytes(content)
    name = agent_name(tmp_path)
    assert agent_name(tmp_path) == name and re.fullmatch(r"[^\s:]+:[0-9a-f]{12}-[0-9a-f]{8}", name)


def test_an_agent_whose_run_is_over_and_that_hangs_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEAVES_S", 0.5)
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    pause(agent, bench)
    lapse(bench)
    assert bench.database.request_cancel("e1").state is State.CANCELLED
    lock.dismiss(run_dir)
    assert agent.wait(PATIENCE_S) == -signal.SIGKILL
    eventually(lambda: family(run_dir) == [])
    lock.dismiss(run_dir)
