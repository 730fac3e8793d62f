"""What jobs left in EMS_OUTPUT_DIR, on its way into the store: what is `ready` is taken, and nobody changes it then."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ems.base import aside
from ems.databases.outputs import NAME_BYTES
from ems.node.job.carried import NOTED
from ems.node.job.outputs import OPEN, POINT, READY, TAKEN
from ems.stores import Unreadable

FOLDERS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Found:
    """A file, or what is not one, that a point left. `folder`: all that the point left; `name`: as it is recorded."""

    path: Path
    folder: Path
    name: str

    @property
    def point(self) -> int:
        """That left it."""
        return _number(self.folder)

    def content(self) -> Path:
        """The file that has its content: of a link, what it leads to. Unreadable if that is none of the point's own."""
        if len(self.name.encode()) > NAME_BYTES:
            raise Unreadable(f"its name has more than {NAME_BYTES} bytes")
        if not self.path.is_symlink():
            return self.path
        with suppress(OSError, RuntimeError):
            real = self._led_to().resolve(strict=True)
            if real.is_relative_to(self.folder.resolve()) and real.is_file():
                return real
        raise Unreadable("it is a link that does not lead to a file beside it")

    def _led_to(self) -> Path:
        """Of links by whole paths, where the file is now that all was moved here."""
        target = self.path.readlink()
        opened = self.folder.parents[1] / OPEN
        if target.is_absolute() and target.is_relative_to(opened):
            _, *inner = target.relative_to(opened).parts  # a folder of a program that stays has those of points in it
            found = [self.folder.joinpath(*parts) for parts in (inner, inner[1:])]
            return found[0] if found[0].exists() else found[1]
        return self.path.parent / target


class Taken:
    """`outputs`: the folder of a run, as `ems.node.job.outputs` has it."""

    def __init__(self, outputs: Path) -> None:
        self._outputs, self._taken = outputs, outputs / TAKEN

    def waiting(self) -> bool:
        """Whether there is anything to be stored, or recorded."""
        found = any(True for name in (TAKEN, READY) for _ in (self._outputs / name).glob(f"{POINT}*"))
        return found or any(True for _ in self.noted())

    def noted(self) -> Iterator[Path]:
        """Files that list what is stored already, by workers of other machines."""
        return (file for file in (self._outputs / NOTED).glob("*") if "." not in file.name)

    def chunks(self, most: int) -> Iterator[list[Found]]:
        """All that is there now, at most so many at a time; folders of which nothing is left are removed at last."""
        self._take()
        folders = sorted(self._taken.glob(f"{POINT}*"), key=_number)
        found = (each for folder in folders for each in _found(folder))
        while chunk := list(islice(found, most)):
            yield chunk
        for folder in folders:
            if next(_walked(folder), None) is None:
                aside.remove(folder)

    def _take(self) -> None:
        for folder in islice((self._outputs / READY).glob(f"{POINT}*"), FOLDERS_AT_ONCE):
            self._taken.mkdir(exist_ok=True)
            if not (self._taken / folder.name).exists():  # else it is, once what is there was stored
                with suppress(FileNotFoundError):  # just replaced
                    folder.rename(self._taken / folder.name)


def _found(folder: Path) -> Iterator[Found]:
    """Links first: what they lead to is removed once it is stored."""
    for path in sorted(_walked(folder), key=lambda path: not path.is_symlink()):
        yield Found(path, folder, _name(path.relative_to(folder)))


def _walked(folder: Path) -> Iterator[Path]:
    """All but folders, at any depth, made readable as far as that is possible."""
    _open_up(folder, stat.S_IRWXU)
    for at, folders, names in os.walk(folder):
        links = [name for name in folders if Path(at, name).is_symlink()]
        for inner in set(folders).difference(links):
            _open_up(Path(at, inner), stat.S_IRWXU)
        for path in (Path(at, name) for name in (*links, *names)):
            if not path.is_symlink():
                _open_up(path, stat.S_IRUSR)
            yield path


def _open_up(path: Path, rights: int) -> None:
    with suppress(OSError):  # reading it says so
        mode = path.stat().st_mode
        if mode & rights != rights:
            path.chmod(stat.S_IMODE(mode) | rights)


def _name(path: Path) -> str:
    """With slashes, as text: what is not UTF-8 is escaped, and told apart by a digest."""
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        text, mark = raw.decode("utf-8", "backslashreplace"), hashlib.sha256(raw).hexdigest()[:8]
        stem, dot, ending = text.rpartition(".")
        return f"{stem}~{mark}.{ending}" if dot and "/" not in ending else f"{text}~{mark}"


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix(POINT))
