"""Files that points left on a machine of workers, and that are stored: noted there, told to the head with the rows.

`carried/` of a run's folder has a note for each file, there until a worker takes it. Standard library alone, Python 3.9
or newer.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.node.job.outputs import POINT, READY, TAKEN

FOLDER, NOTED = "carried", "noted"
LOOK_S = 0.02
Note = Mapping[str, Any]


class Notes:
    """In a folder of a machine of workers: of each file the newest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, point: int, name: str, note: Note) -> None:
        """Of a file that is stored."""
        folder = self._folder / f"{POINT}{point}"
        folder.mkdir(parents=True, exist_ok=True)
        aside.write(folder / hashlib.sha256(name.encode()).hexdigest(), json.dumps(note), lasting=False)

    def take(self, point: int) -> list[Note]:
        """Of all that a point left; each is given once."""
        folder = self._folder / f"{POINT}{point}"
        if not folder.is_dir():
            return []
        found: list[Note] = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.iterdir())]
        aside.remove(folder)
        return found


def awaited(outputs: Path, notes: Path, points: Iterable[int]) -> list[Note]:
    """What points left on this machine, once it is stored. `outputs`: the folder of the run; `notes`: of Notes."""
    if not outputs.is_dir():
        return []
    found = Notes(notes)
    return [note for point in points if _is_stored(outputs, point) for note in found.take(point)]


def _is_stored(outputs: Path, point: int) -> bool:
    name = f"{POINT}{point}"
    while (outputs / READY / name).exists() or (outputs / TAKEN / name).exists():  # in the order in which it moves
        time.sleep(LOOK_S)
    return True


def hand_on(outputs: Path, notes: Sequence[Note]) -> None:
    """On the head: what points left elsewhere, for the agent to record. OSError: no room."""
    folder = outputs / NOTED
    folder.mkdir(parents=True, exist_ok=True)
    aside.write(folder / uuid.uuid4().hex, json.dumps(list(notes)))
