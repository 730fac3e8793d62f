"""What a server is asked of the runs there: a question as JSON on standard input, answered as a line of JSON.

Standard library alone, Python 3.11 or newer: it runs from a zip of EMS's code, before anything is installed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ems.base.errors import EmsError, UserError, refused
from ems.base.locks import lock_folder
from ems.node import run_folder
from ems.node.agent.config import AgentConfig
from ems.node.environments.ready import BOOT, CODE, FAILED, ORDER
from ems.node.job.keeper import end_leftovers, is_locked
from ems.node.mailbox.exchange import contents, exchange

AGENT = "ems.node.hosted"
STEP = re.compile(r" INFO ems\.(?:environments|server): (.*)")
LEAVES_S, POLL_S = 10.0, 0.1  # an agent, once its run is over, or it is killed
LOOKS = 3
NUMBERED = ("/bin/sh", "-c", 'echo $$ > "$0"; exec "$@"')  # notes its process number, whatever becomes of who asked


def look(run_dir: Path) -> dict[str, Any]:
    """How an experiment does there.

    `prepared`: all that its agent needs is there. `booting`: an agent is on its way, as its environment is built.
    `works`: it is at work, or hangs, on its way too. `failed`: why there is no environment; `said`: the last error;
    `step`: what such a one does, or waits for; `progress`: points a second, workers.
    """
    lock = _boot_lock(run_dir)
    held = is_locked(lock)
    works = is_locked(lock_folder(run_dir) / "agent.lock") or (held and _is_stopped(_text(lock).strip()))
    return {
        "prepared": AgentConfig.exists(run_dir) and (run_dir / ORDER).exists() and (run_dir / CODE).exists(),
        "booting": held and not works,
        "works": works,
        "failed": _text(run_dir / FAILED),
        "said": run_folder.last_words(run_dir),
        "step": _step(run_dir),
        "progress": run_folder.progress(run_dir),
    }


def start(run_dir: Path, *, replace: bool = False) -> dict[str, Any]:
    """An agent as a process of its own, that outlives whoever asked; none beside another.

    `replace`: end one that hangs, first.
    """
    if replace:
        _end(run_dir)
    boot = [sys.executable, "-I", "-c", BOOT, str(run_dir / CODE), str(run_dir), "head", AGENT]
    with _boot_lock(run_dir).open("a+", encoding="utf-8") as lock:
        if not _is_mine(lock):
            return {}
        (run_dir / FAILED).unlink(missing_ok=True)
        lock.truncate(0)
        with (run_dir / "agent.log").open("ab") as log:
            subprocess.Popen(
                [*NUMBERED, lock.name, *boot],
                cwd=run_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock.fileno(),),  # which holds the lock as long as it lives
            )
    return {}


def _is_mine(lock: IO[str]) -> bool:
    """Tried for a moment, as who only looks holds it for a shorter one."""
    for _ in range(LOOKS):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(POLL_S)
    return False


def dismiss(run_dir: Path) -> dict[str, Any]:
    """The run is over: an agent that does not go by itself is ended, and what a killed one has left of its job."""
    give_up_at = time.monotonic() + LEAVES_S
    while is_locked(_boot_lock(run_dir)) and time.monotonic() < give_up_at:
        time.sleep(POLL_S)
    _end(run_dir)
    end_leftovers(run_dir)
    return {}


def release(run_dir: Path) -> dict[str, Any]:
    """As `run_folder.release`; what may hold a password of a package index goes too."""
    dismiss(run_dir)
    (run_dir / ORDER).unlink(missing_ok=True)
    run_folder.release(run_dir)
    return {}


def _end(run_dir: Path) -> None:
    """At once, with what builds its environment; what its job is ends as it notices. EmsError if it does not end."""
    lock, give_up_at = _boot_lock(run_dir), time.monotonic() + LEAVES_S
    while is_locked(lock):
        number = _text(lock).strip()
        if time.monotonic() > give_up_at:
            raise EmsError(f"The agent of {run_dir} does not end.", f"Look for process {number or 'python'}: ps -ef")
        with suppress(ValueError, ProcessLookupError):
            os.killpg(int(number), signal.SIGKILL)  # it leads a session
        time.sleep(POLL_S)


def _boot_lock(run_dir: Path) -> Path:
    """What an agent holds from its start to its end, with its process number."""
    return lock_folder(run_dir) / "boot.lock"


def _is_stopped(process: str) -> bool:
    """Whether somebody stopped a process, which then neither goes on nor ends. Known on Linux only."""
    said = _text(Path("/proc", process, "stat")) if process else ""
    return said.rpartition(")")[2].split()[:1] == ["T"]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def _step(run_dir: Path) -> str:
    lines = (run_folder.log_of(run_dir / "agent.log", -4096) or b"").decode(errors="replace").splitlines()
    found = STEP.search((lines or [""])[-1])
    return found[1] if found else ""


ASKED: Mapping[str, Callable[..., dict[str, Any]]] = {
    "look": look,
    "start": start,
    "dismiss": dismiss,
    "release": release,
    "exchange": exchange,
    "contents": contents,
}


def main() -> None:
    """Answer one question: `ask`, `run_dir`, and what else it takes; or those of a list, `each`.

    After the line of JSON come the bytes of `content`, if the answer has such; in a list, `size` says how many are
    whose.
    """
    question = json.load(sys.stdin)
    if "each" in question:
        answers = [answered(one) for one in question["each"]]
        content = b"".join(answer.pop("content", b"") for answer in answers)
        said: dict[str, Any] = {"each": answers}
    else:
        said = answered(question)
        content = said.pop("content", b"")
    sys.stdout.buffer.write(json.dumps(said).encode() + b"\n" + content)


def answered(question: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one. `refused`: why it cannot be; `of_user`: as of a UserError; `size`: of its content."""
    ask, run_dir = ASKED[question["ask"]], Path(question["run_dir"])
    try:
        answer = ask(run_dir, **{key: value for key, value in question.items() if key not in {"ask", "run_dir"}})
    except (EmsError, OSError) as error:
        said = refused(error) if isinstance(error, OSError) else error
        return {"refused": said.message, "hint": said.hint, "of_user": isinstance(said, UserError)}
    return {**answer, "size": len(answer.get("content", b""))}


if __name__ == "__main__":
    main()
