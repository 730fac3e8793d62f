"""How the engine behaves where Pulumi promises nothing and EMS relies on it.

`tests/end_to_end/test_manners.py` asks the newest and the oldest one that EMS supports.

- The first SIGINT or SIGTERM lets an update end in order, cancelling what it waits for; a second may end it at once.
- SIGHUP, as of a closed terminal, and SIGKILL end it at once. Its lock stays, and its language host for minutes.
- An exit code is 0 or another number. Which one differs between versions, and means nothing to EMS.
- A language host works in the lab's folder, or in one inside it. Its arguments differ between versions.
- A file backend keeps a lock as `locks/organization/LAB/STACK/*.json`, a state as `stacks/LAB/STACK.json`, and beside
  each file one that ends in `.attrs`, which may be missing. Keys in a state may begin with capital letters.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from urllib.parse import unquote

import psutil

from ems.base.errors import EngineError
from ems.base.process import CommandFailed

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def running(command: Sequence[str], cwd: Path, env: Mapping[str, str], **how: Any) -> Iterator[subprocess.Popen[Any]]:
    """The engine at work, as `subprocess.Popen(…, **how)`; the block is to wait for its end.

    It is let end in order after a Ctrl-C or SIGTERM; then KeyboardInterrupt. A closed terminal ends both.
    """
    with handing_on() as signals:
        stop_if_told()  # while another engine was at work
        # Unless a terminal's Ctrl-C is to reach it: a signal to our whole group, which we hand on, is its second one
        # then, and at the second one it ends at once, not in order.
        group = None if _in_foreground() else 0
        with subprocess.Popen(command, cwd=cwd, env=env, process_group=group, **how) as child, signals.going_to(child):
            yield child
    if signals.heard:
        raise KeyboardInterrupt


class Signals:
    """Those heard, and the engines that they are handed on to: from before one is started, so that none is lost."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.engines: list[subprocess.Popen[Any]] = []

    @contextmanager
    def going_to(self, engine: subprocess.Popen[Any]) -> Iterator[None]:
        """Have an engine hear them as long as the block lasts."""
        self.engines.append(engine)
        if self.heard:
            engine.send_signal(signal.SIGHUP if signal.SIGHUP in self.heard else signal.SIGINT)
        try:
            yield
        finally:
            self.engines.remove(engine)

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """The handler of each."""
        self.heard.append(number)
        for engine in list(self.engines):
            if number == signal.SIGHUP:
                engine.send_signal(signal.SIGHUP)
            elif number == signal.SIGTERM or not _in_foreground():  # a terminal's Ctrl-C reaches it by itself
                engine.send_signal(signal.SIGINT)


_signals: Signals | None = None  # of the block in which the main thread hands them on


@contextmanager
def handing_on() -> Iterator[Signals]:
    """Hand signals on to the engines that this process runs within the block, in any thread; after it, take them as
    they were meant. A block within such a block is a part of it."""
    global _signals  # noqa: PLW0603  (a process has one set of handlers)
    if _signals is not None or threading.current_thread() is not threading.main_thread():  # no other may have handlers
        yield _signals or Signals()
        return
    _signals = signals = Signals()
    ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
    previous = {number: signal.signal(number, signals.hear) for number in ours}
    try:
        yield signals
    finally:
        _signals = None
        for number, handler in previous.items():
            signal.signal(number, handler)
    if signal.SIGHUP in signals.heard:
        signal.raise_signal(signal.SIGHUP)
    if signals.heard:
        raise KeyboardInterrupt


def stop_if_told() -> None:
    """In a thread, which hears no signals itself: KeyboardInterrupt once the process has heard one."""
    if _signals and _signals.heard:
        raise KeyboardInterrupt


def _in_foreground() -> bool:
    """Whether a terminal sends its Ctrl-C to this process's group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def says_no_such_stack(error: CommandFailed) -> bool:
    """Whether a command failed because there is no stack of that name."""
    return "no stack named" in error.message


def says_stack_exists(error: CommandFailed) -> bool:
    """Whether `stack init` failed because there is one already."""
    return "already exists" in error.message


def diagnostics(error: CommandFailed) -> str:
    """What a failed update says of why, without its tree of resources; all that it says, where that is not found."""
    _, found, rest = error.stdout.partition("Diagnostics:\n")
    why = re.split(r"\n(?=(?:Outputs|Resources|Duration|Policies):)", rest)[0]
    return textwrap.dedent(why).strip() if found else error.message


def backend_folder(url: str, root: Path) -> Path | None:
    """Where a file backend keeps its files; None if the backend of the lab at `root` is another."""
    if not url.startswith("file://"):
        return None
    return (root / Path(unquote(url.removeprefix("file://"))).expanduser() / ".pulumi").absolute()


def states(backend: Path, lab: str) -> list[Path]:
    """State files of the lab's stacks; `stack rm` leaves none."""
    return sorted((backend / "stacks" / lab).glob("*.json"))


def state(backend: Path, lab: str, stack: str) -> Path:
    """The state file of a stack, there or not."""
    return backend / "stacks" / lab / f"{stack}.json"


def copies(state: Path) -> list[Path]:
    """Earlier contents of a state file that the backend may have, the newest first."""
    backend, lab = state.parents[2], state.parent.name
    history = backend / "history" / lab / state.stem
    return [state.with_name(f"{state.name}.bak"), *sorted(history.glob("*.checkpoint.json"), reverse=True)]


def deployment(state: Path) -> dict[str, Any] | None:
    """What a state file says that there is; None if there is no such file, EngineError if it cannot be read."""
    try:
        kept = json.loads(state.read_bytes())["checkpoint"].get("latest")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            f"The state of stack {state.stem} cannot be read: {state}", f"Look at it: ls -l {state}"
        ) from error
    return dict(kept or {})


def attributes(file: Path) -> Path:
    """What the backend keeps beside one of its files; made again when it is missing."""
    return file.with_name(f"{file.name}.attrs")


def format_file(backend: Path) -> tuple[Path, str]:
    """The file that says how the backend is laid out, and its content; without it, Pulumi finds no stack."""
    return backend / "meta.yaml", "version: 1\n"


def locks(backend: Path, lab: str, stack: str) -> list[Path]:
    """Lock files of a stack: of updates under way, and of those whose process was killed."""
    found = (backend / "locks" / "organization" / lab / stack).glob("*.json")
    return sorted(file for file in found if file.is_file())


class Holder(NamedTuple):
    """Who made a lock. Of a damaged one, as after a power cut, nothing is known: 0 and ""."""

    pid: int
    hostname: str
    since: str


def holder(lock: Path) -> Holder | None:
    """Who holds it; None if it was released meanwhile. EngineError if it cannot be read."""
    try:
        made = json.loads(lock.read_bytes())
        return Holder(int(made["pid"]), str(made["hostname"]), str(made["timestamp"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        hint = "Make it readable, or move it away if it is none of Pulumi's; then repeat the command."
        raise EngineError(f"Pulumi's lock {lock} cannot be read: {error.strerror}.", hint) from error
    except (ValueError, KeyError, TypeError):
        return Holder(0, "", "")


def remove_lock(lock: Path) -> None:
    """Remove a lock whose process is gone."""
    lock.unlink(missing_ok=True)
    if attributes(lock).is_file():
        attributes(lock).unlink()


def engines(root: Path) -> list[int]:
    """The living engines that work in the lab at `root`."""
    return [process.pid for process in _processes("pulumi", root) if process.name() == "pulumi"]


def is_engine(pid: int) -> bool:
    """Whether that is a living engine. Not by its age: the clock may have been set since it began."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "pulumi" in process.name()
    return False


def end_orphans(root: Path) -> None:
    """End language hosts of engines that were killed in the lab at `root`, whichever path leads there."""
    for process in _processes("pulumi-language", root):
        with suppress(psutil.Error):  # it has just ended by itself
            if not is_engine(process.ppid()):
                process.kill()


def _processes(name: str, root: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone, or another user's
            if process.name().startswith(name) and _is_inside(Path(process.cwd()), root):
                yield process


def _is_inside(path: Path, root: Path) -> bool:
    """By device and inode: a lab may be reached by several paths."""
    with suppress(OSError):  # the folder is gone
        return any(folder.samefile(root) for folder in (path, *path.parents))
    return False
