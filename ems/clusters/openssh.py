"""Commands on another machine, through OpenSSH's own client and the user's `~/.ssh/config`.

One connection serves all commands of the user there, and at most two at a time, as some hosts allow no more. A host
that wants a password or a second factor is never asked unattended, as failed attempts ban an address: a person opens
the connection (`Host.log_in`), and what finds none says so.

A command is a script for `sh`, which travels on standard input, with its payload after it: nothing that others may not
see stands on a command line, whatever shell the user has there, and whatever that prints when it starts.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import IO

from ems.base import aside
from ems.base.backoff import Backoff
from ems.base.errors import Unreachable, UserError
from ems.base.locks import exclusive, own_folder
from ems.base.messages import show

COMMAND_S = 60.0
TOO_SLOW = 124  # exit code, as `timeout` has it
CONNECT_S = 20  # for the connection, and as long again for the login
MOST_SESSIONS = 2
LOOK_S = 0.02
KILL_S = 5  # after its time, a command there that does not end
SLACK_S = 10.0  # after that, for an answer to arrive
DENIED_S = 600.0  # after somebody was not let in, in which nothing unattended tries again
FAILED_S, LONGEST_FAILED_S = 2.0, 60.0  # after another failure, and after many
BANNED = 3  # refused connections in a row that look like a ban
TRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 4, 1.0, 8.0
ALIVE = ("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3")
QUIET = ("-T", "-x", "-a", "-o", "RemoteCommand=none", "-o", "ClearAllForwardings=yes", "-o", "LogLevel=ERROR")
NEVER_LOGS_IN = ("-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ProxyCommand=false")
UNATTENDED = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes")
NAME = re.compile(r"(?!-)[\w@.:%+/\[\]-]+")
BLOCK = 1 << 20
KEY_CHANGED = re.compile(r"Host key for (\S+) has changed")
DENIED = re.compile(r"Permission denied|Too many authentication failures|No more authentication methods")


@dataclass(frozen=True)
class Answer:
    """What a command gave: its exit code (124 if it took too long there), and both streams."""

    code: int
    out: bytes
    err: str


@dataclass(frozen=True)
class _Failure:
    """The last one of `count` attempts in a row to connect unattended. `at`: time.time() of it; `said`: by `ssh`."""

    at: float
    said: str
    count: int

    @property
    def is_denied(self) -> bool:
        return DENIED.search(self.said) is not None

    @property
    def is_recent(self) -> bool:
        """Whether nothing tries again yet: many attempts ban an address."""
        pause_s = DENIED_S if self.is_denied else min(FAILED_S * 2.0 ** (self.count - 1), LONGEST_FAILED_S)
        return 0 <= time.time() - self.at < pause_s


class NotConnected(Unreachable):
    """Nobody is logged in, so that nothing was sent."""


class Host:
    """A machine by its name for `ssh`: an alias, USER@HOST or ssh://USER@HOST:PORT. Calls may come from any thread."""

    def __init__(self, name: str, login: str, *, unattended: bool) -> None:
        """`login`: the command by which a person connects. `unattended`: whether keys (or Kerberos) do without one."""
        if not NAME.fullmatch(name):
            raise UserError(f"host is {show(name)}: it names no machine.", "Allowed: what `ssh` takes, as me@server.")
        self.name, self._login, self._unattended = name, login, unattended
        self._socket = _folder() / hashlib.sha256(name.encode()).hexdigest()[:16]

    def run(
        self, script: str, payload: bytes | Path = b"", *, timeout_s: float = COMMAND_S, repeats: bool = False
    ) -> Answer:
        """Run a script of `sh` there, in the user's home, with the bytes of `payload`, or of that file, as its input.

        `repeats`: it may run twice, so that one which a cut connection left undecided is repeated some times.
        NotConnected without a connection; Unreachable where it is not known what became of the command.
        """
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                return self._run(script, payload, timeout_s)
            except NotConnected:
                if not self._unattended:
                    raise
                self._connect()
            except Unreachable:
                if not repeats:
                    raise
            if pauses.count + 1 >= TRIES:
                return self._run(script, payload, timeout_s)
            pauses.wait()

    def _run(self, script: str, payload: bytes | Path, timeout_s: float) -> Answer:
        nonce = uuid.uuid4().hex
        framed = _framed(script, nonce)
        command = ["ssh", *QUIET, *NEVER_LOGS_IN, *self._shared(), "--", self.name, _boot(len(framed), timeout_s)]
        with self._session(timeout_s):
            done = _ended(command, framed, payload, timeout_s + SLACK_S)
        if done is None:
            raise Unreachable(f"{self.name} did not answer within {timeout_s:g} s.", "Is the network up? It may come.")
        answer = _answer(done, nonce)
        if answer is None:
            raise self._cut(done.stderr.decode(errors="replace"), nonce)
        return answer

    def _shared(self) -> list[str]:
        """The options by which a connection is used: EMS's own, else the user's, if there is one."""
        return ["-S", str(self._socket)] if self._socket.exists() else []

    def _cut(self, said: str, nonce: str) -> Unreachable:
        """Of a command without an end: it began if it says so, and may have ended."""
        if nonce in said:
            return Unreachable(
                f"The connection to {self.name} was cut.", "Is the network up? The next command goes on."
            )
        return self._not_connected(said)

    def _not_connected(self, said: str = "") -> NotConnected:
        because = f" ({said.strip().splitlines()[-1]})" if self._unattended and said.strip() else ""
        return NotConnected(f"Nobody is logged in to {self.name}{because}.", f"Log in: {self._login}")

    @contextmanager
    def _session(self, timeout_s: float) -> Iterator[None]:
        """One of MOST_SESSIONS at a time, whichever process of this machine has it."""
        files = [self._socket.with_suffix(f".session-{number}").open("w") for number in range(MOST_SESSIONS)]
        try:
            give_up_at = time.monotonic() + max(timeout_s, COMMAND_S) * 2
            while not any(_is_mine(file.fileno()) for file in files):
                if time.monotonic() > give_up_at:
                    raise NotConnected(f"{self.name} is kept busy by other commands of yours.", "Repeat the command.")
                time.sleep(LOOK_S)
            yield
        finally:
            for file in files:
                file.close()

    def is_connected(self) -> bool:
        """Whether there is a connection, EMS's own or the user's. Nothing is opened."""
        checked = _ended(["ssh", *NEVER_LOGS_IN, *self._shared(), "-O", "check", "--", self.name], timeout_s=CONNECT_S)
        return checked is not None and not checked.returncode

    def _connect(self) -> None:
        """Have a connection, unattended. Unreachable if that fails, also if it has failed a moment ago."""
        with exclusive(self._socket.with_suffix(".connecting")):
            if self.is_connected():
                return
            last = self._last_failure()
            if last and last.is_recent:
                raise self._told(last)
            self._socket.unlink(missing_ok=True)
            code, said = self._opened()
            if code:
                raise self._failed(said, 1 + (last.count if last else 0))
            self._failures.unlink(missing_ok=True)

    def _opened(self) -> tuple[int, str]:
        """Start the process that holds the connection, unattended: exit code, and what `ssh` says."""
        with TemporaryFile() as said:  # what stays open would keep a pipe open
            code = _called([*self._opening(), *UNATTENDED, "--", self.name], said)
            said.seek(0)
            return code, said.read().decode(errors="replace").strip()

    def _opening(self) -> list[str]:
        own = ("-o", f"ConnectTimeout={CONNECT_S}", "-o", "ControlPersist=yes", "-M", "-S", str(self._socket))
        return ["ssh", *QUIET, *ALIVE, *own, "-N", "-f"]

    def log_in(self) -> str:
        """Have a connection, maybe by questions of `ssh` at this terminal; returns whose it is: yours, EMS's, or new.

        Unreachable if there is none: what `ssh` says of it, the terminal has.
        """
        if self.is_connected():
            return "EMS's" if self._socket.exists() else "yours"
        with exclusive(self._socket.with_suffix(".connecting")):
            self._socket.unlink(missing_ok=True)
            if _called([*self._opening(), "-o", "StrictHostKeyChecking=ask", "--", self.name]):
                raise Unreachable(f"{self.name} lets nobody in: see what ssh says above.", self._login)
        self._failures.unlink(missing_ok=True)
        return "new"

    def log_out(self) -> bool:
        """Close EMS's own connection; whether there was one."""
        if not self._socket.exists():
            return False
        _ended(["ssh", "-S", str(self._socket), "-O", "exit", "--", self.name], timeout_s=CONNECT_S)
        self._socket.unlink(missing_ok=True)
        return True

    # What fails

    @property
    def _failures(self) -> Path:
        return self._socket.with_suffix(".failed")

    def _last_failure(self) -> _Failure | None:
        """None if the last attempt came to a connection."""
        try:
            return _Failure(**json.loads(self._failures.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _failed(self, said: str, count: int) -> Unreachable | UserError:
        """What people should read of the `count`-th attempt in a row, which is noted."""
        if changed := KEY_CHANGED.search(said):
            forget = f"ssh-keygen -R {shlex.quote(changed[1])}, then {self._login}"
            return UserError(
                f"The host key of {self.name} has changed: somebody may sit between, or it was set up anew.",
                f"Ask who looks after it. If it is right: {forget}\n{said}",
            )
        failure = _Failure(time.time(), said or "ssh said nothing", count)
        aside.write(self._failures, json.dumps(asdict(failure)), lasting=False)
        return self._told(failure)

    def _told(self, failure: _Failure) -> Unreachable:
        last = failure.said.splitlines()[-1]
        if failure.is_denied:
            hint = f"Nothing tries again for {DENIED_S / 60:.0f} min, as many attempts ban an address. Log in: "
            return NotConnected(f"{self.name} does not let you in: {last}", f"{hint}{self._login}")
        if "Host key verification failed" in failure.said:
            return NotConnected(f"{self.name} is not known here: {last}", f"At a terminal: {self._login}")
        if "Connection refused" in failure.said and failure.count >= BANNED:
            message = f"{self.name} refuses connections: it is down, or has banned this address after many attempts."
            return Unreachable(message, "Ask who looks after it, or wait: a ban ends by itself.")
        return Unreachable(f"{self.name} is not reached: {last}", f"Try it: ssh {shlex.quote(self.name)} true")


def _folder() -> Path:
    """For sockets, whose paths must be short."""
    folder = own_folder() / "ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _is_mine(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _boot(size: int, timeout_s: float) -> str:
    """The command that a login shell of any kind understands: the script is the first `size` bytes of its input."""
    read = f'eval "$(dd bs=1 count={size} 2>/dev/null)"'
    return f"exec timeout -k {KILL_S} {timeout_s:g} /bin/sh -c '{read}'"


def _framed(script: str, nonce: str) -> bytes:
    """What the script prints stands between two lines with `nonce`, the second of which has its exit code."""
    begin, end = f"echo {nonce}; echo {nonce} >&2", f'printf "\\n%s %s\\n" {nonce} "$?"'
    return f"{begin}\n(\n{script}\n)\n{end}\n".encode()


def _ended(
    command: Sequence[str], given: bytes = b"", payload: bytes | Path = b"", timeout_s: float = COMMAND_S
) -> subprocess.CompletedProcess[bytes] | None:
    """None if it did not end in time."""
    with TemporaryFile() as first:
        first.write(given + (payload if isinstance(payload, bytes) else b""))
        first.seek(0)
        files = [first, *([payload.open("rb")] if isinstance(payload, Path) else [])]
        with (
            _needing_ssh(),
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        ):
            feeder = Thread(target=_feed, args=(process.stdin, files), daemon=True)
            feeder.start()
            process.stdin = None  # else `communicate` would close it
            try:
                out, err = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                process.kill()
                feeder.join()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _feed(pipe: IO[bytes], files: Sequence[IO[bytes]]) -> None:
    """All of these files, as far as somebody reads them."""
    with suppress(BrokenPipeError), pipe:
        for file in files:
            with file:
                shutil.copyfileobj(file, pipe, BLOCK)


def _called(command: Sequence[str], said: IO[bytes] | None = None) -> int:
    """The exit code of a command that speaks to the terminal, or to the file `said`: then it ends within some time."""
    given, limit_s = (subprocess.DEVNULL, 2 * CONNECT_S) if said else (None, None)
    with _needing_ssh():
        try:
            done = subprocess.run(command, check=False, stdin=given, stdout=said, stderr=said, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return TOO_SLOW
    return done.returncode


@contextmanager
def _needing_ssh() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError("There is no `ssh` here.", "Install OpenSSH's client.") from error


def _answer(done: subprocess.CompletedProcess[bytes], nonce: str) -> Answer | None:
    """None if the command's end is not known."""
    mark = nonce.encode()
    _, began, rest = done.stdout.partition(mark + b"\n")
    err = done.stderr.decode(errors="replace").partition(f"{nonce}\n")[2]
    out, ended, code = rest.rpartition(b"\n" + mark + b" ")
    if began and ended:
        return Answer(int(code), out, err)
    if began and done.returncode in {TOO_SLOW, 137}:
        return Answer(TOO_SLOW, rest, f"{err}no end in time")
    return None
