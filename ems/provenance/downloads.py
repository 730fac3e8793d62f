"""Files of other machines, by https and from gs and s3. What was interrupted goes on where it was.

A file that is another one by then is begun anew where its server says so. Not every server does, so whoever knows the
digest asks whether what came was joined of pieces.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ems.base.backoff import Backoff
from ems.base.errors import EmsError, ProvenanceError

Told = Callable[[int, int | None], None]  # bytes that are there, and of how many, if that is known

BLOCK = 1 << 20
TIMEOUT_S = 60.0  # without a byte
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
MOST_PAUSES = 5  # before each further try that follows one without progress
WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
COMPLETE = 416  # the answer to a request for what follows the end
ACCESS = {
    "gs": "Check the name, and your access: gcloud auth application-default login",
    "s3": "Check the name, and your access: aws sts get-caller-identity",
}


class _Cut(Exception):
    """The connection ended before the file did."""


def download(url: str, part: Path, told: Told) -> bool:
    """Complete `part`, which may hold the beginning of the file already, or all of it.

    Returns whether it was joined of pieces, which may be of different files.

    ProvenanceError: the file could not be obtained; EmsError: it cannot be written. What came is kept in `part`.
    """
    return _Web(url, part, told).fetch() if url.startswith("https://") else _from_bucket(url, part, told)


def copy(read: Callable[[int], bytes], part: Path, start: int, total: int | None, told: Told) -> None:
    """Write what `read` gives into `part`, after its first `start` bytes; flushed to the disk.

    `told` hears after each block how many bytes are there, of `total`. EmsError if `part` cannot be written.
    """
    with _writing(part):
        part.touch()
        os.truncate(part, start)
        file = part.open("ab")
    with file:
        done = start
        while block := read(BLOCK):
            with _writing(part):
                file.write(block)
                file.flush()
            done += len(block)
            told(done, total)
        with _writing(part):
            os.fsync(file.fileno())


class _Web:
    """One download by https, in as many requests as it needs."""

    def __init__(self, url: str, part: Path, told: Told) -> None:
        self._url, self._part, self._told = url, part, told
        self._tag = ""  # what the server calls this state of the file
        self._joined = False

    def fetch(self) -> bool:
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            had = _size(self._part)
            try:
                self._request(had)
                return self._joined
            except (OSError, HTTPException, _Cut) as error:
                if isinstance(error, HTTPError) and error.code == COMPLETE and had:
                    return True
                if _size(self._part) > had:
                    pauses.reset()
                if pauses.count == MOST_PAUSES or _is_final(error):
                    hint = "Check the address, or try again: what has come is kept."
                    raise ProvenanceError(f"{self._url} could not be obtained: {error}", hint) from error
            pauses.wait()

    def _request(self, had: int) -> None:
        with build_opener(_SameScheme).open(self._asking(had), timeout=TIMEOUT_S) as answer:
            start, tag = had if answer.status == 206 else 0, _tag(answer.headers)
            if start and self._tag not in {"", tag}:
                self._part.unlink()
                raise _Cut("the file has changed while it came")
            self._tag, self._joined = tag, start > 0
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length else None
            copy(answer.read1, self._part, start, total, self._told)
        if total is not None and _size(self._part) < total:
            raise _Cut(f"the connection ended after {_size(self._part):,} of {total:,} bytes")

    def _asking(self, had: int) -> Request:
        headers = {"User-Agent": "ems", "Accept-Encoding": "identity"}
        if had:
            headers["Range"] = f"bytes={had}-"
        if had and self._tag:
            headers["If-Range"] = self._tag
        return Request(self._url, headers=headers)


def _tag(headers: HTTPMessage) -> str:
    """What may stand in `If-Range`; "" if the server names nothing. A weak tag may not: its bytes may differ."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _is_final(error: Exception) -> bool:
    if isinstance(error, HTTPError):
        return error.code not in WORTH_ANOTHER_TRY
    return isinstance(error, URLError) and isinstance(error.reason, ssl.SSLCertVerificationError)


class _SameScheme(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme != "https":
            to = urlsplit(newurl)
            where = f"{to.scheme}://{to.hostname}"  # the rest may be somebody's credentials
            raise ProvenanceError(f"{req.full_url} leads on to {where}: allowed is https.", "Write another address.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _from_bucket(url: str, part: Path, told: Told) -> bool:
    """Arrow finds the service's own credentials, and tries again by itself."""
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    scheme, _, place = url.partition("://")
    bucket, options = place.partition("/")[0], "?retry_limit_seconds=30" if scheme == "gs" else ""
    try:
        system, _ = FileSystem.from_uri(f"{scheme}://{bucket}{options}")
        before = system.get_file_info(place)
        with system.open_input_file(place) as source:
            total, had = source.size(), _size(part)
            start = had if had <= total else 0
            source.seek(start)
            copy(lambda size: bytes(source.read(8 * size)), part, start, total, told)
        return start > 0 or system.get_file_info(place) != before
    except (OSError, ArrowException) as error:
        said = str(error).partition(" error_info=")[0]
        raise ProvenanceError(f"{url} could not be obtained: {said}", ACCESS[scheme]) from error


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """What fails here is this machine's disk, not the network."""
    try:
        yield
    except OSError as error:
        hint = f"Free some space there, or give another folder as EMS_CACHE_DIR: df -h {file.parent}"
        raise EmsError(f"{file} cannot be written: {error.strerror}.", hint) from error
