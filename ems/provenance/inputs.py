"""`inputs:` of an experiment: files that it reads, known by SHA-256, staged once into the user's cache."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from ems.base import aside
from ems.base.cache import cache_dir
from ems.base.errors import Fault, ProvenanceError, StackFileError
from ems.base.locks import exclusive
from ems.base.messages import Say, show
from ems.provenance import digests
from ems.provenance.downloads import Told, copy, download
from ems.stack.keys import dotted
from ems.stack.models import ExperimentSpec, InputSpec

SAY_S = 0.5
READ_ONLY = 0o444
MOST_TRIES = 3  # of a download that was joined of pieces
FIX = "put back the file that was meant; or write the new digest as sha256 and commit, which makes another experiment"
PRINTS = {  # the command that prints the digest of what is elsewhere
    "https": "curl -fL {} | sha256sum",
    "gs": "gcloud storage cat {} | sha256sum",
    "s3": "aws s3 cp {} - | sha256sum",
}


def content(experiment: ExperimentSpec) -> dict[str, str]:
    """SHA-256 of each input, by its name: what of `inputs:` decides what an experiment computes."""
    return {name: described.sha256 for name, described in experiment.inputs.items()}


def refuse(root: Path, experiment: ExperimentSpec, *, needed: bool = True) -> None:
    """StackFileError if a digest is missing, or a local file is not the one that it names, or, if `needed`, is missing.

    An experiment that is finished needs none.
    """
    found = [fault for name, each in experiment.inputs.items() for fault in _faults(root, name, each, needed)]
    if found:
        raise StackFileError(found)


def _faults(root: Path, name: str, described: InputSpec, needed: bool) -> Iterator[Fault]:
    key, file, wanted = ("ems:experiment", "inputs", name), _local(root, described.url), described.sha256
    if file is None:
        if not wanted:
            scheme = described.url.partition("://")[0]
            command = PRINTS[scheme].format(shlex.quote(described.url))
            yield Fault(dotted((*key, "sha256")), f"is missing: `{command}` prints it")
        return
    if not (file.exists() or needed) and wanted:
        return
    if not file.is_file():
        yield Fault(
            dotted((*key, "url")), f"is {show(described.url)}, but {file} is not a file: allowed is a file's path"
        )
        return
    found = digests.known_sha256(file)
    if not wanted:
        yield Fault(dotted((*key, "sha256")), f"is missing: {file} has {found}")
    elif found != wanted:
        yield Fault(dotted((*key, "sha256")), f"is {wanted}, but {file} has {found}: {FIX}")


def stage(root: Path, experiment: ExperimentSpec, say: Say) -> dict[str, Path]:
    """The inputs, by name, as read-only files in the cache, whose names begin with their SHA-256.

    What is there and unchanged is taken as it is. ProvenanceError: a file could not be obtained, or is another one.
    """
    return {name: _staged(root, name, described, say) for name, described in experiment.inputs.items()}


def _staged(root: Path, name: str, described: InputSpec, say: Say) -> Path:
    final = cache_dir() / "inputs" / (described.sha256 + "".join(Path(name).suffixes))
    lock = final.with_name(f"{final.name}.lock")
    with exclusive(lock, lambda: say(f"input {name}: another process stages it")):
        if not (final.exists() and digests.known_sha256(final) == described.sha256):
            part = final.with_name(f"{final.name}.part")
            _fetch(root, name, described, part, say)
            aside.publish(part, final)
        if final.stat().st_mode & 0o777 != READ_ONLY:
            final.chmod(READ_ONLY)
            digests.remember(final, described.sha256)
    return final


def _fetch(root: Path, name: str, described: InputSpec, part: Path, say: Say) -> None:
    told, file = _teller(name, say), _local(root, described.url)
    found, joined = "", False
    for _ in range(MOST_TRIES):
        joined = download(described.url, part, told) if file is None else _copy(file, part, told)
        say(f"input {name}: checking it")
        found = digests.sha256(part)
        if found == described.sha256:
            return
        part.unlink()
        if not joined:
            break
    if joined:
        raise ProvenanceError(
            f"Input {name} came in pieces that do not belong together: {described.url} changes while it is read.",
            "Try again once it does not.",
        )
    where = file or described.url
    raise ProvenanceError(
        f"Input {name} is another file now: {where} has {found}, the stack file wants {described.sha256}.",
        f"To fix it: {FIX}.",
    )


def _copy(file: Path, part: Path, told: Told) -> bool:
    """Whether it was joined of pieces, as `download` says: never."""
    try:
        with file.open("rb") as source:
            copy(source.read, part, 0, os.fstat(source.fileno()).st_size, told)
    except OSError as error:
        raise ProvenanceError(f"{file} cannot be read: {error.strerror}.", "Put it there, readable.") from error
    return False


def _teller(name: str, say: Say) -> Told:
    said_at = 0.0

    def told(done: int, total: int | None) -> None:
        nonlocal said_at
        if time.monotonic() - said_at > SAY_S:
            said_at = time.monotonic()
            say(f"input {name}: {done / 1e6:,.1f} {f'of {total / 1e6:,.1f} ' if total else ''}MB")

    return told


def _local(root: Path, url: str) -> Path | None:
    """The file that `url` names on this machine; None for what is elsewhere."""
    if url.startswith("file://"):
        return Path(unquote(url.removeprefix("file://")))
    return None if "://" in url else root / url
