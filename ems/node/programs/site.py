"""Where one worker runs its programs: the working folder, what they are told, and what they have said."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.messages import raised
from ems.node.driver.worker_process import Limits
from ems.node.job import checkpoints
from ems.node.job.declared import Declared
from ems.node.job.keeper import MARKER
from ems.node.job.outputs import VARIABLE, OutputFolder
from ems.node.job.reading import reader_of
from ems.node.job.results_reader import ResultsReader
from ems.node.job.variables import CHECKPOINT
from ems.node.programs.order import ProgramOrder
from ems.node.programs.program import End
from ems.node.programs.working_folder import WorkingFolder
from ems.spool.batch import Value
from ems.sweep import placeholders
from ems.sweep.placeholders import RESULTS

LOG_LINES, LOG_BYTES, SAID_CHARACTERS = 30, 8 * 2**10, 300
OUTPUT = "stdout.txt"  # among what a point left
OUTPUT_BYTES = 2**20  # that are kept of the output of a point without rows


class Site:
    """Of the worker `number`; no other process may use its folder."""

    def __init__(self, order: ProgramOrder, number: str) -> None:
        """Make the folders. OSError: no room, no right."""
        self.order = order
        self.limits = Limits(order.memory_mb, order.point_timeout_s)
        self._folder = Path(order.folder) / number
        aside.remove(self._folder)
        self.results = self._folder / "results"
        self.results.mkdir(parents=True)
        self.outputs = OutputFolder(Path(order.outputs) if order.outputs else self._folder, number)
        self._work = WorkingFolder(Path(order.code), self._folder / "code")
        self.work = self._work.path
        self.stdout, self.stderr = self._folder / "stdout", self._folder / "stderr"
        self._parameters = self._folder / "parameters.json"
        self._declared = Declared.of(order.results)
        self._checkpoint: Path | None = None
        self._holder = f"{socket.gethostname().partition('.')[0]}-{os.getpid()}"
        self._words = [placeholders.parse(word) for word in order.command]
        self._env = {name: placeholders.parse(text) for name, text in order.env.items()}

    @property
    def is_one_program(self) -> bool:
        """Whether all points are computed by the same one."""
        return not any(isinstance(piece, placeholders.Name) for piece in self._words[0])

    def reader(self) -> ResultsReader:
        """Of what the next point's program writes, asked for before it starts."""
        return reader_of(self.results, self.work, self.stdout, self._declared)

    def told(self, point: Mapping[str, Value]) -> dict[str, Any]:
        """All parameters of a point: those of the grid, and those that all points have."""
        return {**self.order.parameters, **point}

    def words(self, point: Mapping[str, Value]) -> list[str]:
        """The command."""
        texts = self._texts(point)
        return [placeholders.filled(pieces, texts) for pieces in self._words]

    def variables(self, point: Mapping[str, Value], number: int = 0) -> dict[str, str]:
        """What the program finds in its environment; makes what two of them name. `number`: that of the point."""
        self._parameters.write_text(json.dumps(self.told(point)), encoding="utf-8")
        texts = self._texts(point)
        own = {name: placeholders.filled(pieces, texts) for name, pieces in self._env.items()}
        ours = {"EMS_PARAMETERS": str(self._parameters), MARKER: os.environ.get(MARKER, "")}
        ours[VARIABLE] = str(self.outputs.path)
        folders = {"EMS_RESULTS_DIR": str(self.results)} if self.order.protocol == "process" else {}
        machine = {name: os.environ[name] for name in self.order.of_machine if name in os.environ}
        if self.order.checkpoints:
            self._checkpoint = checkpoints.take_point(Path(self.order.checkpoints), number, self._holder)
            folders[CHECKPOINT] = str(self._checkpoint)
        return {**self.order.variables, **machine, **own, **ours, **folders}

    def _texts(self, point: Mapping[str, Value]) -> dict[str, str]:
        texts = {name: placeholders.text_of(value) for name, value in self.told(point).items()}
        return {**texts, RESULTS: str(self.results)}

    def said(self, end: End) -> str:
        """What went wrong, in a line, then the last lines that the program printed."""
        text = _end_of(self.stderr) or _end_of(self.stdout)
        if not text.strip():
            return str(end)
        line = raised(text)[:SAID_CHARACTERS]
        return f"{line} ({end})\n\n" + "\n".join(text.rstrip().splitlines()[-LOG_LINES:])

    def clear(self, name: str, read: Sequence[Path], *, has_rows: bool) -> None:
        """Be as at first. What the program left is kept as `left/NAME`, but for the files that were `read`.

        The point's checkpoint stays where it is, if there is anything in it.
        """
        keep = Path(self.order.left) / name
        for path in read:
            path.unlink(missing_ok=True)
        self._work.renew(keep)
        for path in sorted(self.results.iterdir()):
            _move(path, keep / path.name)
        if self._checkpoint:
            checkpoints.put_back_point(self._checkpoint)
        if not has_rows and self.stdout.exists() and self.stdout.stat().st_size:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / OUTPUT).write_bytes(_last_bytes(self.stdout, OUTPUT_BYTES))

    def leave_outputs(self, name: str) -> None:
        """What a program that has ended left there of no point, or of one that it did not answer, is kept, too."""
        for path in sorted(self.outputs.path.glob("*")):
            _move(path, Path(self.order.left) / name / VARIABLE / path.name)
        self.outputs.clear()


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.remove(target)
    path.rename(target)


def _last_bytes(file: Path, size: int) -> bytes:
    if not file.exists():
        return b""
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - size))
        return opened.read()


def _end_of(file: Path) -> str:
    return _last_bytes(file, LOG_BYTES).decode("utf-8", "replace")
