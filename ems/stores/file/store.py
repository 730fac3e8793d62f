"""A store in a folder: `ab/ab12…` has the content with that SHA-256; `incoming/` what is being written."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import psutil

from ems.base import aside
from ems.base.errors import StoreError, StoreUnavailable, UserError
from ems.base.messages import show
from ems.base.private import make_folder
from ems.stores import ALLOWED, KEPT, Content, Source, Store, key
from ems.stores.source import BLOCK

INCOMING = "incoming"
OWNER = re.compile(r"(?P<pid>\d+)@(?P<host>.+)@[0-9a-f]{32}")
OLD_S = 7 * 24 * 3600.0  # what a process of another machine began then, nobody goes on with


def connect(url: str, root: Path) -> FolderStore:
    """The store in the folder at `url`, a path or file:///path; UserError if it names none."""
    if not url.startswith("file://"):
        if not url or "\0" in url:
            raise UserError(f"ems:store is {show(url)}: it names no folder.", ALLOWED)
        return FolderStore(root / Path(url).expanduser())
    path = unquote(url.removeprefix("file://"))
    if not path.startswith("/"):
        raise UserError(f"ems:store is {show(url)}: it names no folder of this machine.", f"file:///path. {ALLOWED}")
    return FolderStore(Path(path))


class FolderStore(Store):
    """Files are copied, not moved: whatever still has a file open changes its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = folder
        self._tidied = False

    @property
    def folder(self) -> Path:
        return self._folder

    def make_ready(self) -> None:
        try:
            make_folder(self.folder)
            self._make_inner(self.folder / INCOMING)
            tried = self.folder / INCOMING / _own_name()
            aside.write(tried, json.dumps({"version": 1}))
            if (self.folder / KEPT).exists():
                tried.unlink()
            else:  # several may do so at once, each with a file of its own
                tried.replace(self.folder / KEPT)
        except OSError as error:
            hint = "Make it writable, free some space, or name another folder as ems:store in Pulumi.yaml."
            raise StoreError(f"The lab's store {self.folder} cannot be used: {error.strerror}.", hint) from error

    def put(self, source: Source) -> Content:
        self.require()
        self._tidy()
        part = self.folder / INCOMING / _own_name()
        try:
            with self._refusing():
                content = _written(source, part)
                final = self.folder / key(content.digest)
                if not _has(final, content.size):
                    self._make_inner(final.parent)
                    aside.publish(part, final)
                return content
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def require(self) -> None:
        if not (self.folder / KEPT).exists():
            raise self.unmarked()

    def _make_inner(self, folder: Path) -> None:
        """With the rights of the store's own folder, which may be a group's."""
        if not folder.is_dir():
            with suppress(FileExistsError):
                folder.mkdir()
                folder.chmod(self.folder.stat().st_mode & 0o7777)

    def _tidy(self) -> None:
        """Remove, once in this process, what killed processes had begun to write."""
        if self._tidied:
            return
        self._tidied = True
        with suppress(OSError):  # of others
            for path in (self.folder / INCOMING).iterdir():
                if _is_abandoned(path):
                    path.unlink(missing_ok=True)

    def read(self, digest: str, start: int = 0) -> Iterator[bytes]:
        file = self.folder / key(digest)
        try:
            with file.open("rb", buffering=0) as opened:
                opened.seek(start)
                while block := opened.read(BLOCK):
                    yield block
        except FileNotFoundError as error:
            raise StoreError(f"The store {self.folder} does not have {digest}.", _gone(self.folder)) from error
        except OSError as error:
            raise StoreUnavailable(f"{file} cannot be read: {error.strerror}.", f"ls -l {file}") from error

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """What fails in the block is the store's: maybe it is full, or its disk is gone."""
        try:
            yield
        except OSError as error:
            hint = "It is tried again. Free some space there, or see who may write: ls -ld"
            raise StoreUnavailable(
                f"The lab's store {self.folder} cannot be written: {error.strerror}.", f"{hint} {self.folder}"
            ) from error


def _written(source: Source, part: Path) -> Content:
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        return source.copied(handle)
    finally:
        os.close(handle)


def _gone(folder: Path) -> str:
    return f"Was something removed there? Look for it: ls {folder}"


def _has(file: Path, size: int) -> bool:
    """Whether the content is there; one of another size is damaged, and is written anew."""
    with suppress(OSError):
        return file.stat().st_size == size
    return False


def _own_name() -> str:
    return f"{os.getpid()}@{socket.gethostname()}@{uuid.uuid4().hex}"


def _is_abandoned(path: Path) -> bool:
    owner = OWNER.match(path.name)
    if owner and owner["host"] == socket.gethostname():
        return not psutil.pid_exists(int(owner["pid"]))
    return time.time() - path.stat().st_mtime > OLD_S
