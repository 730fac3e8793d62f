"""One agent to a run folder: its lock and its name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import psutil

from ems.databases import State

HANGS_S = 15.0  # an agent that waits for the database beats again within seconds of its return
PATIENCE_S = 2.0  # long enough for an agent that is on its way out, or that was asked about its lock
_POLL_S = 0.1


def agent_name(run_dir: Path) -> str:
    """The name of the agents of this folder, made once: a laptop changes its host name as it travels."""
    file = run_dir / "agent.id"
    if not file.exists():
        aside = run_dir / f"agent.id.{uuid.uuid4().hex}"
        aside.write_text(f"{socket.gethostname()}:{uuid.uuid4().hex[:12]}", encoding="utf-8")
        with contextlib.suppress(FileExistsError):  # another agent was quicker: its name is ours too
            os.link(aside, file)
        aside.unlink()
    return file.read_text(encoding="utf-8")


def take_lock(run_dir: Path, state: Callable[[], State | None], lease_s: float) -> TextIO | None:
    """The folder's lock, held until the file is closed; None if another agent is at work.

    `state`: reads the experiment's row. An agent that holds the lock while its lease has lapsed hangs: it is killed.
    """
    file = (run_dir / "agent.lock").open("a+", encoding="utf-8")
    began = time.monotonic()
    while not _try_lock(file):
        waited_s = time.monotonic() - began
        if waited_s > PATIENCE_S:
            now = state()
            if now is None or now is State.RUNNING or now.finished:
                file.close()
                return None
            if waited_s > (HANGS_S if now is State.LOST else lease_s):
                _kill_holder(file, run_dir)
        time.sleep(_POLL_S)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kill_holder(file: TextIO, run_dir: Path) -> None:
    """Only an agent of this folder, as the system gives numbers out again. Not by its age: clocks are set."""
    file.seek(0)
    text = file.read()
    try:
        line = psutil.Process(int(text)).cmdline() if text else []
    except psutil.NoSuchProcess:
        return
    if "ems.node" in line and Path(line[-1]).resolve() == run_dir.resolve():
        os.kill(int(text), signal.SIGKILL)
