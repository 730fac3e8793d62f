"""A store in a bucket of Google Cloud Storage: `gs://BUCKET/PREFIX`.

Credentials come by Google's own ways: application-default ones, a service account's key, a role of the machine;
STORAGE_EMULATOR_HOST for a server of one's own. An upload that was cut off is not seen by anybody, and ends by itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    RetryError,
    Unauthorized,
)
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from ems.base.errors import StoreError, StoreUnavailable
from ems.stores import KEPT, Content, Source, Store, bucket_of, key
from ems.stores.source import BLOCK

PART_BYTES = 16 << 20
TIMEOUT_S = (10.0, 60.0)  # to connect, and between two answers
RETRY = DEFAULT_RETRY.with_timeout(30.0)
SIGN_IN = "Sign in: gcloud auth application-default login. It needs roles/storage.objectUser on the bucket."


def connect(url: str, root: Path) -> GsStore:  # noqa: ARG001  (only a folder needs the lab's)
    """The store at `url`; UserError if that names no bucket."""
    return GsStore(url, *bucket_of(url))


class GsStore(Store):
    """Objects `PREFIX/ab/ab12…`."""

    def __init__(self, url: str, bucket: str, prefix: str) -> None:
        super().__init__(url)
        self._bucket, self._prefix = bucket, prefix
        self._making = threading.Lock()
        self._made: Any = None

    def _blob(self, name: str) -> Any:
        with self._making, self._mapped():
            self._made = self._made or Client(project=_project())
            return self._made.bucket(self._bucket).blob(self._prefix + name, chunk_size=PART_BYTES)

    def make_ready(self) -> None:
        mark = self._blob(KEPT)
        with self._mapped():
            mark.upload_from_string(json.dumps({"version": 1}), "application/json", retry=RETRY, timeout=TIMEOUT_S)
            mark.download_as_bytes(retry=RETRY, timeout=TIMEOUT_S)

    def require(self) -> None:
        mark = self._blob(KEPT)
        try:
            with self._mapped():
                mark.reload(retry=RETRY, timeout=TIMEOUT_S)
        except _Missing as error:
            raise self.unmarked() from error

    def put(self, source: Source) -> Content:
        content = source.content()
        blob = self._blob(key(content.digest))
        with self._mapped():
            if not (blob.exists(retry=RETRY, timeout=TIMEOUT_S) and self._has(blob, content.size)):
                source.seek(0)
                self._upload(blob, source, content.size)
        return content

    def _has(self, blob: Any, size: int) -> bool:
        blob.reload(retry=RETRY, timeout=TIMEOUT_S)
        return bool(blob.size == size)

    def _upload(self, blob: Any, source: Source, size: int) -> None:
        """In one request if it is small, else in parts that are gone on with when the connection breaks."""
        try:
            blob.upload_from_file(
                source,
                size=size,
                content_type="application/octet-stream",
                if_generation_match=blob.generation or 0,
                retry=RETRY,
                timeout=TIMEOUT_S,
            )
        except PreconditionFailed:  # somebody else has put the same content meanwhile
            self._has(blob, size)

    def read(self, digest: str, start: int = 0) -> Iterator[bytes]:
        blob = self._blob(key(digest))
        try:
            with self._mapped(), blob.open("rb", chunk_size=PART_BYTES, retry=RETRY, timeout=TIMEOUT_S) as opened:
                opened.seek(start)
                while block := opened.read(BLOCK):
                    yield block
        except _Missing as error:
            raise StoreError(f"{self.name} does not have {digest}.", "Was something removed there?") from error

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except NotFound as error:
            raise self._missing(error) from error
        except (Unauthorized, Forbidden) as error:
            raise StoreError(f"{self.name} refuses: {_said(error)}.", SIGN_IN) from error
        except GoogleAPICallError as error:
            if error.code is not None and error.code < 500 and error.code not in {408, 429}:
                raise StoreError(f"{self.name} refuses a call: {_said(error)}.", SIGN_IN) from error
            raise StoreUnavailable(f"{self.name} does not answer now: {_said(error)}", "It is tried again.") from error
        except (TransportError, RetryError, InvalidResponse, DataCorruption, requests.RequestException) as error:
            raise StoreUnavailable(f"{self.name} does not answer: {_said(error)}", "It is tried again.") from error
        except GoogleAuthError as error:
            raise StoreError(f"{self.name}: no credentials were found: {_said(error)}", SIGN_IN) from error

    def _missing(self, error: NotFound) -> StoreError:
        if "bucket" in _said(error).lower():
            hint = f"gcloud storage buckets create gs://{self._bucket}"
            return StoreError(f"{self.name}: the bucket {self._bucket!r} is not there.", hint)
        return _Missing(f"{self.name} does not have it.")


def _project() -> str:
    """None is needed for objects; asking for the default one would fail where there is none."""
    return "none"


def _said(error: Exception) -> str:
    """In one line, without addresses of single uploads, which are as good as credentials."""
    message = getattr(error, "message", "") or str(error)
    return " ".join(message.split("upload_id=")[0].split())[:300]


class _Missing(StoreError):
    """There is no such object."""
