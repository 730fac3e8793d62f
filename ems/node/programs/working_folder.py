"""The folder in which a worker's programs run: a copy of the code, made once and as new for each point.

Whatever a program changed, added or removed is found by what the system notes of files and folders, so that a point
costs no copy of the whole code. What was changed once is not trusted again: it is copied anew after each point.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ems.base import aside

KEPT = "__pycache__"  # Python makes them, and checks by itself that they are up to date
CLOCK_S = 0.02  # file systems note times to some milliseconds
Signature = tuple[int, int, int, int]


class WorkingFolder:
    """`path`: the folder. It is as `source` at first and after each `renew`."""

    def __init__(self, source: Path, path: Path) -> None:
        """Make it, in place of what is there. OSError: no room, no right."""
        self.path, self._source, self._top = path, source, str(path)
        aside.remove(path)
        shutil.copytree(source, path, symlinks=True)
        self._folders = {name: _names(source / name) for name in _folders(source)}  # parents first
        files = [_below(folder, name) for folder, names in self._folders.items() for name in names]
        self._files = [name for name in files if name not in self._folders]
        self._seen: dict[str, Signature] = {}
        self._noted: dict[str, tuple[str, int, int]] = {}
        for name in (*self._folders, *self._files):
            self._note(name)
        self._changed: set[str] = set()  # since the beginning
        time.sleep(CLOCK_S)

    def renew(self, keep: Path) -> bool:
        """Make it as at first; what a program has left in it goes to the folder `keep`. Whether there was anything."""
        self._changed.update(self._touched())
        if not self._changed:
            return False
        left = [self._renewed(name, keep) for name in self._folders if name in self._changed]
        copied = [name for name in self._files if name in self._changed]
        left += [self._copied(name, keep) for name in copied]
        for folder in {os.path.dirname(name) or "." for name in copied}:  # noqa: PTH120
            self._note(folder)
        return any(left)

    def _touched(self) -> Iterator[str]:
        """What the system notes a change of: it does so whatever a program may do about times."""
        lstat = os.lstat
        for name, (path, inode, changed_ns) in self._noted.items():
            try:
                found = lstat(path)
            except OSError:
                yield name
                continue
            if found.st_ctime_ns != changed_ns or found.st_ino != inode:
                yield name

    def _renewed(self, folder: str, keep: Path) -> bool:
        """A folder has what it is to have, and nothing else."""
        path = self.path / folder
        left = False
        if not stat.S_ISDIR(_mode(path)):
            left = self._move(folder, keep)
            path.mkdir()
            self._changed.update(name for name in self._noted if name.startswith(f"{folder}/"))
        path.chmod(0o700 | stat.S_IMODE(_mode(self._source / folder)))
        for name in sorted(_names(path) - self._folders[folder] - {KEPT}):
            left |= self._move(_below(folder, name), keep)
        self._note(folder)
        return left

    def _copied(self, file: str, keep: Path) -> bool:
        """A file is as it is in the source."""
        left = not self._is_same(file) and self._move(file, keep)
        with suppress(FileNotFoundError):
            (self.path / file).unlink()
        shutil.copy2(self._source / file, self.path / file, follow_symlinks=False)
        self._note(file)
        return left

    def _note(self, name: str) -> None:
        """This is how it is to be."""
        path = f"{self._top}/{name}"
        found = os.lstat(path)
        self._noted[name] = (path, found.st_ino, found.st_ctime_ns)
        self._seen[name] = _signature(found)

    def _is_same(self, file: str) -> bool:
        """Whether nothing was written to it: then there is nothing in it to be kept."""
        with suppress(OSError):
            return _signature(os.lstat(self.path / file)) == self._seen[file]
        return False

    def _move(self, name: str, keep: Path) -> bool:
        path = self.path / name
        if not os.path.lexists(path):
            return False
        target = keep / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _make_movable(path)
        aside.remove(target)
        path.rename(target)
        return True


def _signature(found: os.stat_result) -> Signature:
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns


def _folders(source: Path) -> Iterator[str]:
    for folder, _, _ in os.walk(source):
        yield os.path.relpath(folder, source)


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder)}


def _below(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _mode(path: Path) -> int:
    with suppress(OSError):
        return os.lstat(path).st_mode
    return 0


def _make_movable(path: Path) -> None:
    """A folder that its program has made read-only cannot be moved into another one."""
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o700 | stat.S_IMODE(path.stat().st_mode))
