"""The lab's store: files that jobs left, kept by the SHA-256 of their content.

The URL's scheme is the name of the folder here that serves it: `gs://bucket/prefix` → `ems/stores/gs/store.py`, whose
`connect(url, root)` returns a `Store`. What has no scheme is a folder.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from ems.base import plugins
from ems.base.errors import StoreUnavailable, UserError
from ems.base.messages import show
from ems.stores.source import Content, Interrupted, Source, Unreadable

__all__ = [
    "DEFAULT",
    "KEPT",
    "Content",
    "Interrupted",
    "Source",
    "Store",
    "Unreadable",
    "check_address",
    "connect",
    "key",
]

DEFAULT = ".ems/store"
KEPT = "ems-store.json"
"""What marks a place as a store: without it nothing is written there, as a disk may be missing that lies there."""
FOLDER = "file"
ALLOWED = "Allowed: a folder, as .ems/store or /data/lab-store; gs://BUCKET/PREFIX; s3://BUCKET/PREFIX."
ADDRESS = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(?P<prefix>[^?#]*))?")


class Store(ABC):
    """What every kind of store promises:

    - Whole: a content is there whole, under its own SHA-256, or it is absent.
    - Once: the same content takes its room once, whoever puts it, and however often.
    - Idempotent: any call may be repeated, also after it was cut off at any moment.
    - Flat: contents of any size pass through some megabytes of memory.
    - Patient: StoreUnavailable means that the store does not answer now, or is full, and that the call may be repeated
      for ever; StoreError that a person has to change something.

    Calls come from several threads.
    """

    def __init__(self, name: str) -> None:
        """`name`: in messages, without anything secret."""
        self.name = name

    @property
    def folder(self) -> Path | None:
        """Where it is on this machine; None if it is elsewhere."""
        return None

    @abstractmethod
    def make_ready(self) -> None:
        """Make sure that the store can be written and read here, and mark it as one. StoreError if not."""

    @abstractmethod
    def require(self) -> None:
        """Change nothing. StoreUnavailable if the place, as this machine sees it, is not marked as a store."""

    def unmarked(self) -> StoreUnavailable:
        """What people should read then."""
        return StoreUnavailable(
            f"{self.name} is not the lab's store here, as it has no {KEPT}.",
            "Is its disk mounted on this machine? `ems up` makes it where there is none.",
        )

    @abstractmethod
    def put(self, source: Source) -> Content:
        """Keep the content of a file, durably. StoreUnavailable also as of `require`, for a folder.

        Unreadable if the file cannot be read, or changes while it is.
        """

    @abstractmethod
    def read(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """A content from byte `start` on, in pieces of some megabytes. StoreError if the store does not have it."""


def key(digest: str) -> str:
    """Where a content lies in its store."""
    return f"{digest[:2]}/{digest}"


def check_address(url: str, root: Path) -> None:
    """UserError if `url` names no store that EMS knows, or holds a secret; the store itself is not asked."""
    connect(url, root)


def connect(url: str, root: Path) -> Store:
    """The store at `url`; a relative folder is taken from `root`. Nothing is made, asked or opened yet."""
    scheme, separator, _ = url.partition("://")
    known = plugins.names("stores")
    if separator and scheme not in known:
        close = get_close_matches(scheme.lower(), known, n=1)
        meant = f"Did you mean {close[0]}://{_shown(url).partition('://')[2]}? " if close else ""
        raise UserError(f"ems:store is {show(_shown(url))}: no store of that kind.", f"{meant}{ALLOWED}")
    found: Store = plugins.load("stores", scheme if separator else FOLDER, "store").connect(url, root)
    return found


def _shown(url: str) -> str:
    """Without what may be somebody's credentials."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def bucket_of(url: str) -> tuple[str, str]:
    """Bucket and prefix ("" or with a slash at its end) of a URL; UserError if it is not of that form."""
    if "@" in url or "?" in url:
        raise UserError(
            f"ems:store is {show(_shown(url))} with credentials or options, which belong elsewhere.",
            "Keys belong into ~/.aws or `gcloud auth application-default login`, never into a URL.",
        )
    parts = ADDRESS.fullmatch(url.partition("://")[2])
    if not parts:
        raise UserError(f"ems:store is {show(url)}: it names no bucket.", ALLOWED)
    prefix = (parts["prefix"] or "").strip("/")
    return parts["bucket"], f"{prefix}/" if prefix else ""
