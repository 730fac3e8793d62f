"""Files and folders that others read: written under another name, flushed to the disk, renamed.

Killed at any moment, the final name has the old content or the new one, whole. What is left is `NAME.tmp` (of a folder
also `NAME.old`), which the next write replaces. One process at a time writes a name; where there may be more, they take
turns (`ems.base.locks.exclusive`).

Standard library alone, Python 3.9 or newer: drivers in other environments write files too.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CANNOT_FLUSH_FOLDERS = {errno.EACCES, errno.EINVAL, errno.ENOTSUP}  # what some network file systems answer


@contextmanager
def writing(file: Path, *, lasting: bool = True) -> Iterator[Path]:
    """The path to write to in the block; after it, `file` is there, also after a power cut if it is to be `lasting`.

    An error in the block leaves `file` as it was. OSError: no space, no right.
    """
    part = file.with_name(f"{file.name}.tmp")
    try:
        yield part
        publish(part, file, lasting=lasting)
    except OSError as error:
        error.filename = error.filename or str(file)  # which a write to a full disk does not name
        raise
    finally:
        part.unlink(missing_ok=True)


def write(file: Path, content: str | bytes, *, lasting: bool = True) -> None:
    """Replace the content of `file`, text as UTF-8; otherwise as `writing`."""
    with writing(file, lasting=lasting) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def publish(part: Path, file: Path, *, lasting: bool = True) -> None:
    """Give the complete `part` its final name in the same folder."""
    if lasting:
        flush(part)
    part.replace(file)
    if lasting:
        _flush_folder(file.parent)


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """The same for a folder: the path at which the block makes it.

    It is not flushed, so a power cut may lose content; while it replaces another one it is missing for a moment.
    """
    part, old = folder.with_name(f"{folder.name}.tmp"), folder.with_name(f"{folder.name}.old")
    remove(part)
    remove(old)
    try:
        yield part
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    finally:
        with suppress(OSError):  # the next one says so
            remove(part)
            remove(old)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, read-only folders too; nothing if it is not there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    for folder, inner, _ in os.walk(path):
        for below in (Path(folder, name) for name in inner):
            if not below.is_symlink():
                below.chmod(0o700)  # before it is looked into
    shutil.rmtree(path)


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    """So that a rename in it survives a crash of the machine, as far as its file system can do that."""
    try:
        flush(folder)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH_FOLDERS:
            raise
