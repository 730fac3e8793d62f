"""One agent to a run folder: its lock and its name."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import psutil

from ems.base import aside
from ems.base.locks import exclusive, lock_folder
from ems.databases import State
from ems.node.job.keeper import end_leftovers, is_locked

HANGS_S = 15.0  # an agent that waits for the database beats again within seconds of its return
LEAVES_S = 5.0  # an agent, once its run is over
PATIENCE_S = 2.0  # long enough for an agent that is on its way out, or that was asked about its lock
NAME = re.compile(r"[^\s:]*:[0-9a-f]{12}")
_POLL_S = 0.1


def agent_name(run_dir: Path) -> str:
    """The name of the agents of this folder, and not of its copies, here or elsewhere.

    The host's name in it is for people, and stays: a laptop changes its own as it travels.
    """
    file = run_dir / "agent.id"
    if not _given(file):
        _give(file)
    about = run_dir.stat()
    here = f"{about.st_dev} {about.st_ino} {_machine()}"
    return f"{_given(file)}-{hashlib.sha256(here.encode()).hexdigest()[:8]}"


def _given(file: Path) -> str:
    """What was made up once for this folder, or for that of which it is a copy; "" if there is nothing of that form."""
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return text if NAME.fullmatch(text) else ""


def _give(file: Path) -> None:
    """Of several at once, one wins, and its name is that of all."""
    with exclusive(lock_folder(file.parent) / "agent.id.lock"):
        if not _given(file):
            aside.write(file, f"{socket.gethostname()}:{uuid.uuid4().hex[:12]}")


def _machine() -> str:
    """What an installed system is known by, where it has such a thing; a Mac has not."""
    try:
        return Path("/etc/machine-id").read_text(encoding="utf-8")
    except OSError:
        return ""


def take_lock(run_dir: Path, state: Callable[[], State | None], lease_s: float) -> TextIO | None:
    """The folder's lock, held until the file is closed; None if another agent is at work.

    `state`: reads the experiment's row. An agent that holds the lock while its lease has lapsed hangs: it is killed.
    """
    file = lock_file(run_dir).open("a+", encoding="utf-8")
    began = time.monotonic()
    while not _try_lock(file):
        waited_s = time.monotonic() - began
        if waited_s > PATIENCE_S:
            now = state()
            if now is None or now is State.RUNNING or now.finished:
                file.close()
                return None
            if waited_s > (HANGS_S if now is State.LOST else lease_s):
                kill_holder(run_dir)
        time.sleep(_POLL_S)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def lock_file(run_dir: Path) -> Path:
    """What an agent at work in this folder holds: on a file system that machines share, one of its machine alone."""
    return lock_folder(run_dir) / "agent.lock"


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(run_dir: Path) -> int | None:
    """The process that last took the folder's lock, if it lives and is an agent of this folder.

    Asked for its command, as the system gives numbers out again; not for its age: clocks are set.
    """
    try:
        number = int(lock_file(run_dir).read_text(encoding="utf-8", errors="replace"))
        line = psutil.Process(number).cmdline()
    except (OSError, ValueError, OverflowError, psutil.Error):
        return None
    folders = [Path(word).resolve() for word in line[-2:]]
    return number if any(word.startswith("ems.") for word in line) and run_dir.resolve() in folders else None


def kill_holder(run_dir: Path) -> None:
    """End an agent that hangs; its job ends with it."""
    if number := holder(run_dir):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(number, signal.SIGKILL)


def dismiss(run_dir: Path) -> None:
    """End an agent whose run is over, if it does not release the folder within seconds: it hangs.

    What a killed one has left of its job ends too.
    """
    give_up_at = time.monotonic() + LEAVES_S
    while is_locked(lock_file(run_dir)) and time.monotonic() < give_up_at + LEAVES_S:
        if time.monotonic() > give_up_at:
            kill_holder(run_dir)
        time.sleep(_POLL_S)
    end_leftovers(run_dir)
