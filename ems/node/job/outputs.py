"""The folder that EMS_OUTPUT_DIR names: what a job leaves in it is kept in the lab's store.

`outputs/` of a run's folder has `open/NAME`, into which a command or a worker writes now, and `ready/point-7`, which is
complete and waits for the agent. Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path

from ems.base import aside

VARIABLE = "EMS_OUTPUT_DIR"
UNTOUCHED_S = 12_345  # a time of 1970 that no program gives by chance
FOLDER, OPEN, READY, TAKEN, REPLACED, POINT = "outputs", "open", "ready", "taken", "replaced", "point-"


class OutputFolder:
    """One that points write into, one after another. `outputs`: the folder of the run. OSError: no room, no right."""

    def __init__(self, outputs: Path, name: str) -> None:
        self.path, self._outputs = outputs / OPEN / name, outputs
        self._marked = -1
        self._make()

    @classmethod
    def of_process(cls, outputs: Path) -> OutputFolder:
        """That of this process, of all machines that share the run's folder."""
        return cls(outputs, f"{socket.gethostname()}-{os.getpid()}")

    def _make(self) -> None:
        """Any change of what is in a folder is noted by its time, so that it costs one look a point."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._has_any():
            os.utime(self.path, (UNTOUCHED_S, UNTOUCHED_S))
            self._marked = self.path.stat().st_mtime_ns

    def clear(self) -> None:
        """Empty it: what is in it does not count."""
        if self._is_touched():
            aside.remove(self.path)
            self._make()

    def keep(self, point: int) -> None:
        """What is in it is complete, and of this point; it is empty afterwards."""
        if self._is_touched():
            if self._has_any():
                self._hand_over(self.path, point)
            self._make()

    def close(self, point: int) -> None:
        """As `keep`, at the end, whenever it was begun; nothing is left of it."""
        if self._has_any():
            self._hand_over(self.path, point)
        else:
            aside.remove(self.path)

    def keep_own(self, point: int) -> None:
        """What is in its folder of this point's number is complete."""
        own = self.path / str(point)
        if own.is_dir():
            self._hand_over(own, point)

    def _hand_over(self, path: Path, point: int) -> None:
        """In place of what was left by an earlier try, if the agent has not taken that yet."""
        ready = self._outputs / READY / f"{POINT}{point}"
        ready.parent.mkdir(exist_ok=True)
        replaced = self._outputs / REPLACED / uuid.uuid4().hex
        if ready.exists():
            replaced.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # just taken
                ready.rename(replaced)
        path.rename(ready)
        aside.remove(replaced)

    def _has_any(self) -> bool:
        try:
            with os.scandir(self.path) as entries:
                return next(entries, None) is not None
        except FileNotFoundError:  # the job may remove it, too
            return False

    def _is_touched(self) -> bool:
        try:
            return self.path.stat().st_mtime_ns != self._marked
        except FileNotFoundError:
            return True
