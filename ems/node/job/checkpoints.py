"""The folder that a job keeps from one run of its experiment to the next: `EMS_CHECKPOINT_DIR`.

It is called `checkpoint-3` while the job of run 3 may write to it, and `checkpoint` once that job was seen to end. So a
job that nobody could end, as its machine was cut off, is left with a name that leads nowhere. What it has open it may
still write to: where that can be, the next run gets a copy. `checkpoint.old` is what is being copied, `NAME.gone` what
is being removed, which no run uses again.

In the folder of a run of a grid over a program, `point-5` is such a place for point 5, whose folder is called after the
worker that computes it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ems.base import aside

FREE, OLD, GONE = "checkpoint", "checkpoint.old", ".gone"
HELD = re.compile(r"checkpoint-[^.]+")
SPARE = "spare-"
POINT = re.compile(r"point-(\d+)")
TRIES = 5
NAMES = re.compile(r"checkpoint(-[^.]+)?(\.old|\.tmp|\.gone)?")


def take(place: Path, holder: int | str, *, alone: bool) -> Path:
    """The folder for the job of this run (its number) or worker, with all that those before have left in it.

    `alone`: whether none of those can be alive. OSError: no room, no right.
    """
    for _ in range(TRIES):
        with suppress(FileNotFoundError):  # who held it puts it back just now
            return _taken(place, place / f"{FREE}-{holder}", alone=alone)
    return _taken(place, place / f"{FREE}-{holder}", alone=alone)


def _taken(place: Path, folder: Path, *, alone: bool) -> Path:
    found, old = newest(place), place / OLD
    if found is None:
        folder.mkdir()
        return folder
    if alone or found.name == FREE:
        found.rename(folder)
    else:
        if found != old:
            _discard(old)
            found.rename(old)
        with aside.making(folder) as part:
            shutil.copytree(old, part, symlinks=True, copy_function=_copy)
    _discard(old)
    return folder


def put_back(folder: Path) -> None:
    """The job that held it has ended, and all that it has started."""
    with suppress(OSError):  # it is not empty, or was taken over
        folder.rmdir()
    with suppress(OSError):  # it is gone
        folder.rename(folder.with_name(FREE))


def forget(place: Path) -> None:
    """Nothing goes on from it any more."""
    for path in list(place.glob(f"{FREE}*")):
        if NAMES.fullmatch(path.name):
            _discard(path)


def take_point(folder: Path, point: int, holder: str) -> Path:
    """The folder of a point, within that of the run; a worker that is gone may have left a program that lives on."""
    place = folder / f"point-{point}"
    with suppress(OSError):  # there is something in it already, or this worker has no spare one yet
        (folder / f"{SPARE}{holder}").rename(place)
        return place / f"{FREE}-{holder}"
    place.mkdir(exist_ok=True)
    return take(place, holder, alone=False)


def put_back_point(folder: Path) -> None:
    """The program that held it has ended, and all that it has started.

    Most points leave nothing: then it is the worker's next one, as removing and making folders may take milliseconds.
    """
    place = folder.parent
    with suppress(OSError):  # it was taken over
        if not any(folder.iterdir()) and [path.name for path in place.iterdir()] == [folder.name]:
            place.rename(place.with_name(SPARE + folder.name.removeprefix(f"{FREE}-")))
            return
    put_back(folder)
    with suppress(OSError):  # it is not empty
        place.rmdir()


def begin_points(folder: Path, is_stored: Callable[[int], bool]) -> None:
    """A run begins, in which no worker is at work yet: remove what it does not need."""
    for spare in folder.glob(f"{SPARE}*"):
        aside.remove(spare)
    forget_points(folder, is_stored)


def forget_points(folder: Path, is_stored: Callable[[int], bool]) -> None:
    """Nothing goes on from those of such points any more."""
    with suppress(FileNotFoundError):  # it was put back: the next run looks again
        for path in list(folder.iterdir()):
            if (match := POINT.fullmatch(path.name)) and is_stored(int(match[1])):
                _discard(path)


def newest(place: Path) -> Path | None:
    """What somebody has now, or had last; else what was at rest; else what somebody who was killed did not copy whole.

    Of all these there is one at a time, but for a moment.
    """
    held = [path for path in place.glob(f"{FREE}-*") if HELD.fullmatch(path.name)]
    if held:
        return max(held, key=lambda path: path.stat().st_mtime_ns)
    return next((path for name in (FREE, OLD) if (path := place / name).is_dir()), None)


def _copy(source: str, target: str) -> None:
    with suppress(FileNotFoundError):  # whoever still writes there took it away meanwhile
        shutil.copy2(source, target, follow_symlinks=False)


def _discard(path: Path) -> None:
    """Remove it, so that at no moment a part of it is there under its name."""
    gone = path if path.name.endswith(GONE) else path.with_name(path.name + GONE)
    if path.exists() and path != gone:
        aside.remove(gone)
        path.rename(gone)
    aside.remove(gone)
