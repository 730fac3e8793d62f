"""The job's processes: agent → keeper → command. They end with the agent, on every Unix.

The agent starts a keeper (`python -m ems.node.job.keeper`, a session of its own) and holds the only writing end of the
keeper's standard input; when that closes, for whatever reason, the keeper stops the command's process group. Keeper
and command hold an flock on `job.lock` (of this machine: `lock_folder`), which contains the command's process group: so
an agent that comes after a crash of both finds out whether anything still lives. What left the group is known by a
random token of the job's own, which `job.token` keeps; a process that this one descends from is never the job's,
whatever its variables are.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.errors import EmsError
from ems.base.locks import lock_folder
from ems.node.job import strays
from ems.node.job.log import BoundedLog, Pump

MARKER = "EMS_JOB"  # the variable with the token
_POLL_S = 0.02
_KEEPER_PATIENCE_S = 10.0
_TOGETHER_S = 5.0  # in which a signal to all processes has reached the agent too


@dataclass(frozen=True)
class Ended:
    """How the command ended. `code`: its exit code, or minus the number of the signal that killed it."""

    code: int
    problem: str = ""  # why it could not be started

    @property
    def was_terminated(self) -> bool:
        """Whether SIGTERM ended it, or a program in it."""
        return self.code in {-signal.SIGTERM, 128 + signal.SIGTERM}

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        if self.code < 0:
            return f"killed by {_signal_name(-self.code)}"
        if self.code > 128 and self.code - 128 in set(signal.Signals):
            return f"exit code {self.code}: a program in it was killed by {_signal_name(self.code - 128)}"
        return f"exit code {self.code}"


def _signal_name(number: int) -> str:
    name = f"signal {number} ({signal.Signals(number).name})"
    return f"{name}: often the machine ran out of memory" if number == signal.SIGKILL else name


class Job:
    """A running command."""

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        run_dir: Path,
        grace_s: float,
        output: Path | None = None,
    ) -> None:
        """Start it. What it prints is appended to `run_dir/job.log`, of much only its beginning and its end.

        `output`: the file that has its standard output instead.
        """
        self._run_dir, self._grace_s = run_dir, grace_s
        token = uuid.uuid4().hex
        aside.write(run_dir / "job.token", token)
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "ems.node.job.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, MARKER: token},
            start_new_session=True,
        )
        self._ended: Ended | None = None
        self._listener = threading.Thread(target=self._listen, name="job", daemon=True)
        self._listener.start()
        order = {"command": list(command), "cwd": str(cwd), "env": {**environment, MARKER: token}}
        self._tell({**order, "run_dir": str(run_dir), "grace_s": grace_s, "output": str(output or "")})

    def wait(self, timeout_s: float) -> Ended | None:
        """How the command ended, once no process of it is left; None if that takes longer than `timeout_s`."""
        self._listener.join(timeout_s)
        if self._ended is None and not self._listener.is_alive():
            raise EmsError(f"Processes of the job in {self._run_dir} do not end.", "Look for them with: ps -ef")
        return self._ended

    def stop(self) -> Ended:
        """SIGTERM, then SIGKILL after the grace; returns when no process of the job is left."""
        assert self._keeper.stdin
        with contextlib.suppress(BrokenPipeError):  # a keeper that is gone has nothing left to be told
            self._keeper.stdin.close()
        ended = self.wait(2 * self._grace_s + _KEEPER_PATIENCE_S)
        while ended is None:
            self._keeper.kill()
            ended = self.wait(_KEEPER_PATIENCE_S)
        return ended

    def _tell(self, order: object) -> None:
        assert self._keeper.stdin
        with contextlib.suppress(BrokenPipeError):  # its death is reported by `_listen`
            self._keeper.stdin.write(json.dumps(order).encode() + b"\n")
            self._keeper.stdin.flush()

    def _listen(self) -> None:
        assert self._keeper.stdout
        said = self._keeper.stdout.read()
        code = self._keeper.wait()
        if said:
            self._ended = Ended(**json.loads(said))
            return
        kill_leftovers(self._run_dir)  # the keeper was killed
        self._ended = Ended(code)


def kill_leftovers(run_dir: Path, timeout_s: float = 10.0) -> None:
    """SIGKILL whatever lives of an earlier job in `run_dir`; EmsError if it does not die in time."""
    give_up_at = time.monotonic() + timeout_s
    token = _token(run_dir)
    while _kill_once(lock_folder(run_dir) / "job.lock", token):
        if time.monotonic() > give_up_at:
            raise EmsError(
                f"Processes of an earlier job in {run_dir} do not end.", f"Look for them: ps -ef | grep {run_dir}"
            )
        time.sleep(_POLL_S)


def end_leftovers(run_dir: Path) -> None:
    """The same of a run that is over and needs no agent any more; one at work sees to its own job."""
    lock = lock_folder(run_dir) / "agent.lock"
    if not lock.exists():
        return
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # meanwhile none begins
        except BlockingIOError:
            return
        kill_leftovers(run_dir)


def _token(run_dir: Path) -> str:
    """Of the last job in `run_dir`; "" if it had none."""
    try:
        return (run_dir / "job.token").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _kill_once(lock: Path, token: str) -> bool:
    """Whether there was anything to kill. The group's number is used only while the lock proves that it is ours."""
    held = is_locked(lock)
    group = lock.read_text(errors="replace").strip() if held else ""
    if group.isdecimal() and int(group) > 1:
        _signal_group(int(group), signal.SIGKILL)
    return _kill_strays(token) or held


def is_locked(lock: Path) -> bool:
    """Whether somebody holds an exclusive flock on that file."""
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _kill_strays(token: str) -> bool:
    """Whether there were processes of the job with this token, in its group or not."""
    return _kill(list(strays.having(MARKER, token))) if token else False


def _kill(found: Sequence[int]) -> bool:
    """Whether there were any."""
    for pid in found:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def _signal_group(group: int, number: int) -> bool:
    """Whether the group has a process. Macs refuse (EPERM) where all that is left of a group are zombies."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


class Told:
    """Whether SIGTERM has come, and when."""

    def __init__(self) -> None:
        self._at = -_TOGETHER_S

    def now(self, *_: object) -> None:
        """It comes."""
        self._at = time.monotonic()

    @property
    def just_now(self) -> bool:
        """Whether it came lately."""
        return time.monotonic() - self._at < _TOGETHER_S


def keep() -> None:
    """The keeper: run the command that the first line of standard input describes, stop it when the input closes.

    A SIGTERM that it gets itself is one to all processes: the command has its own, and the agent decides what follows.
    """
    told = Told()
    signal.signal(signal.SIGTERM, told.now)
    strays.adopt()
    order = json.loads(sys.stdin.buffer.readline())
    lock = os.open(lock_folder(Path(order["run_dir"])) / "job.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.ftruncate(lock, 0)
    try:
        process, pump = _start(order, lock)
    except OSError as error:
        _report(127, _not_started(order["command"][0], error))
        return
    pump.start()
    ended = threading.Event()
    threading.Thread(target=_stop_with_agent, args=(process.pid, told, ended, order["grace_s"]), daemon=True).start()
    code = _ended(process)
    ended.set()
    _end_group(process.pid, order["grace_s"])
    _end_strays(order["env"][MARKER])
    pump.finish()
    _report(code, "")


def _ended(process: subprocess.Popen[bytes]) -> int:
    """The command's exit code, once it ends; orphans that end before are forgotten."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode


def _not_started(program: str, error: OSError) -> str:
    why = f"{error.strerror}: {error.filename!r}" if error.filename != program else error.strerror
    return f"{program!r} could not be started: {why}"


def _start(order: dict[str, Any], lock: int) -> tuple[subprocess.Popen[bytes], Pump]:
    """The command, and what brings its output into the log, which is to be started. OSError if either cannot be."""
    log = BoundedLog(Path(order["run_dir"]) / "job.log")
    read, write = os.pipe()
    try:
        with Path(order["output"] or os.devnull).open("ab") as output:
            process = subprocess.Popen(
                order["command"],
                cwd=order["cwd"],
                env=order["env"],
                stdin=subprocess.DEVNULL,
                stdout=output if order["output"] else write,
                stderr=write,
                pass_fds=[lock],
                process_group=0,
                preexec_fn=partial(_begin, lock),  # noqa: PLW1509  (the keeper has one thread yet)
            )
    finally:
        os.close(write)
    return process, Pump(read, log)


def _begin(lock: int) -> None:
    """The command, before it runs, signs by itself: so no death of the keeper leaves an unknown group.

    It meets signals at their defaults, whatever the shell ignored from which all began: `nohup`, a job in background.
    """
    os.write(lock, str(os.getpid()).encode())
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _stop_with_agent(group: int, told: Told, ended: threading.Event, grace_s: float) -> None:
    while os.read(0, 4096):  # not through `sys.stdin`, whose lock would be taken at the interpreter's end
        pass
    if not told.just_now:  # a second one could end what saves its state because of the first
        _signal_group(group, signal.SIGTERM)
    if not ended.wait(grace_s):
        _signal_group(group, signal.SIGKILL)


def _end_group(group: int, grace_s: float) -> None:
    """End what the command left behind in its group."""
    kill_at = time.monotonic() + grace_s
    while _signal_group(group, signal.SIGTERM) and time.monotonic() < kill_at:
        time.sleep(_POLL_S)
    _signal_group(group, signal.SIGKILL)


def _end_strays(token: str) -> None:
    """End what left the group: known by the token or, also without its variables, as a descendant."""
    give_up_at = time.monotonic() + _KEEPER_PATIENCE_S
    while _kill(strays.descendants()) or _kill_strays(token):
        if time.monotonic() > give_up_at:
            return
        time.sleep(_POLL_S)


def _report(code: int, problem: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # without an agent nobody listens
        print(json.dumps({"code": code, "problem": problem}), flush=True)  # noqa: T201


if __name__ == "__main__":
    keep()
