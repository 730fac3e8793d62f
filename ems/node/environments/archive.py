"""An environment as one file, with its SHA-256 beside it, in a folder that is published whole.

    KEY/environment.tar.gz            the environment's folder
    KEY/environment.tar.gz.sha256     as `sha256sum` writes it
    KEY/requirements.txt              what it was made of, for people

File systems for scratch data remove files by their age, one by one, and disks fill up: so what is used is checked.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ems.base import aside
from ems.base.errors import EmsError
from ems.node.environments.recipe import Recipe

FILE, SUM, LOCK = "environment.tar.gz", "environment.tar.gz.sha256", "requirements.txt"
FOLDER_MODE, FILE_MODE = 0o2775, 0o664  # for the members of a group, who may replace what is damaged
BLOCK = 1 << 20


class Damaged(EmsError):
    """An archive that is not there, or is not what was built."""


def write(built: Path, folder: Path, recipe: Recipe) -> None:
    """Publish `built`, a folder, as the archive in `folder`, which is replaced. OSError: no space, no right."""
    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    make_shared(part)
    try:
        with (part / FILE).open("wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
            archive.add(built, arcname=".")
        with (part / FILE).open("rb") as made:
            (part / SUM).write_text(f"{_sha256(made)}  {FILE}\n", encoding="utf-8")
        (part / LOCK).write_text(f"# Python {recipe.python}\n{recipe.lock}", encoding="utf-8")
        for name in (FILE, SUM, LOCK):
            (part / name).chmod(FILE_MODE)
            aside.flush(part / name)
        _replace(part, folder)
    finally:
        remove(part)


def make_folder(archives: Path) -> None:
    """For archives, for the group of the folder in which it is made; one that is there keeps its rights."""
    if not archives.is_dir():
        archives.parent.mkdir(parents=True, exist_ok=True)
        archives.mkdir(exist_ok=True)
        archives.chmod(FOLDER_MODE)


def make_shared(folder: Path) -> None:
    """A new folder that the members of a group may change."""
    folder.mkdir()
    folder.chmod(FOLDER_MODE)


def remove(folder: Path) -> None:
    """A folder beside the archives, maybe of another member of the group: then it cannot be `aside.remove`d."""
    shutil.rmtree(folder, ignore_errors=True)


def _replace(part: Path, folder: Path) -> None:
    old = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.old")
    with suppress(FileNotFoundError):
        folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise  # else another builder was quicker, and its archive is as good
    remove(old)


def check(folder: Path) -> None:
    """Damaged, if the archive in `folder` is missing or not what was built."""
    with _opened(folder):
        pass


def unpack(folder: Path, target: Path) -> None:
    """Lay out an archive as `target`, a new folder. As `check`; OSError: no space, no right."""
    with _opened(folder) as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
        if hasattr(tarfile, "fully_trusted_filter"):
            archive.extraction_filter = staticmethod(tarfile.fully_trusted_filter)  # it has the bytes that were built
        archive.extractall(target)


@contextmanager
def _opened(folder: Path) -> Iterator[IO[bytes]]:
    """The archive, whose checksum was looked at."""
    try:
        wanted = (folder / SUM).read_text(encoding="utf-8", errors="replace").split()[:1]
        file = (folder / FILE).open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(f"{error.filename} is missing.") from error
    with file:
        if [found := _sha256(file)] != wanted:
            said = " ".join(wanted) or "written beside it"
            raise Damaged(f"{folder / FILE} is damaged: its SHA-256 is {found}, not {said}.")
        file.seek(0)
        yield file


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()
